"""What `dvc.lock` records of each stage: here, or at a revision in git. Read only; DVC alone writes it."""

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from rootstock import layout
from rootstock.config.load import parse_yaml


class Record(NamedTuple):
    """A stage as it last ran."""

    name: str  # with its item: fetch@source, finetune@full-0
    command: str
    deps: dict[str, str]  # path -> md5, for a folder with `.dir`
    params: dict[str, Any]  # key as in dvc.yaml (`fetch.source`) -> value
    outs: dict[str, str]  # path -> md5


def parse(text: str, *, where: str) -> dict[str, Record]:
    """Return the records of a dvc.lock by stage name, in the file's order; `where` names it in errors."""
    stages = parse_yaml(text, where=where).get("stages", {})
    return {name: _record(name, stage) for name, stage in stages.items()}


def _record(name: str, stage: dict) -> Record:
    params = {key: value for section in stage.get("params", {}).values() for key, value in section.items()}
    deps, outs = ({row["path"]: row["md5"] for row in stage.get(key, [])} for key in ("deps", "outs"))
    return Record(name, stage["cmd"], deps, params, outs)


def current(root: Path = Path()) -> dict[str, Record]:
    """Return the records of a checkout's own dvc.lock.

    Raises:
        FileNotFoundError: nothing has been reproduced yet.
    """
    path = root / layout.DVC_LOCK
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `make repro` makes it")
    return parse(path.read_text(), where=str(path))


def at(revision: str, root: Path = Path()) -> dict[str, Record]:
    """Return the records of the dvc.lock that a revision of git holds.

    Raises:
        ValueError: there is no such revision, or it holds no dvc.lock.
    """
    name = f"{revision}:{layout.DVC_LOCK}"
    return parse(_git(root, "show", name), where=name)


def revision_with(md5: str, root: Path = Path()) -> str | None:
    """Return the first revision (40 digits) whose dvc.lock holds a hash, seen from HEAD; None where none does."""
    # -S lists the commits that changed how often the text occurs: the oldest one brought it
    found = _git(root, "log", "--format=%H", "-S", md5, "--", str(layout.DVC_LOCK)).split()
    return found[-1] if found else None


def producer(records: dict[str, Record], path: str) -> Record | None:
    """Return the stage that writes `path`, or the folder around it; None where none does."""
    for record in records.values():
        if any(_holds(out, path) for out in record.outs):
            return record
    return None


def upstream(records: dict[str, Record], name: str) -> list[Record]:
    """Return a stage and all that it depends on through files, each after what it depends on.

    Raises:
        ValueError: there is no such stage.
    """
    if name not in records:
        raise ValueError(f"{layout.DVC_LOCK}: found no stage {name!r}, wanted one of {', '.join(records)}")
    ordered: dict[str, Record] = {}

    def visit(record: Record) -> None:
        if record.name in ordered:
            return
        for dep in record.deps:
            for other in records.values():
                # a stage may depend on a folder into which several stages write
                if any(_holds(out, dep) or _holds(dep, out) for out in other.outs):
                    visit(other)
        ordered[record.name] = record

    visit(records[name])
    return list(ordered.values())


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
