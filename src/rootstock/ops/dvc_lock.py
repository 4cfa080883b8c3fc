"""What `dvc.lock` records of each stage: here, or at a revision in git. Read only; DVC alone writes it."""

import subprocess
from collections.abc import Collection
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
    return parse(_git(root, "show", name).decode(), where=name)


def revision_with(hashes: Collection[str], root: Path = Path()) -> str | None:
    """Return the first revision (40 digits) whose dvc.lock holds all hashes, seen from HEAD; None where none does."""
    # one hash may be much older than the others: an empty table is the same for all data
    touched = {revision for md5 in hashes for revision in revisions_with(md5, layout.DVC_LOCK, root)}
    for revision in (revision for revision in revisions_of(layout.DVC_LOCK, root) if revision in touched):
        text = (content(revision, layout.DVC_LOCK, root) or b"").decode()
        if all(md5 in text for md5 in hashes):
            return revision
    return None


def revisions_with(text: str, path: Path, root: Path = Path()) -> list[str]:
    """Return the revisions that brought a text into a file or folder, or took it out, seen from HEAD, oldest first."""
    return _log(root, "-S", text, "--", str(path))


def revisions_of(path: Path, root: Path = Path()) -> list[str]:
    """Return the revisions that changed a file, seen from HEAD, oldest first; none where there is no commit yet."""
    return _log(root, "--", str(path))


def _log(root: Path, *arguments: str) -> list[str]:
    try:
        _git(root, "rev-parse", "--quiet", "--verify", "HEAD")
    except ValueError:  # no repository, or no commit yet: nothing is committed, which is an answer
        return []
    return _git(root, "log", "--reverse", "--format=%H", *arguments).decode().split()


def content(revision: str, path: str | Path, root: Path = Path()) -> bytes | None:
    """Return a file's bytes at a revision; None where the revision holds no such file."""
    try:
        return _git(root, "show", f"{revision}:{path}")
    except ValueError:
        return None


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


def _git(root: Path, *arguments: str) -> bytes:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
