"""Mend what a killed `dvc` leaves and the next one stops at.

DVC 3.67 writes two files in place, so a kill in that moment leaves half of one: `dvc.lock` (0.3 s of every stage),
which is then no YAML, and `.dvc/tmp/rwlock`, its list of who reads and writes what. That list also names processes by
pid alone: a later process with a dead one's pid blocks every `dvc repro` (in containers, where pids start anew). A
record that dvc.lock loses is work lost, a training runs again; so each stage keeps a copy of it, whole at that time,
when it begins.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock import layout
from rootstock.ops import dvc_lock
from rootstock.ops.locks import take

DVC_TMP = Path(".dvc/tmp")
WRITTEN_TO = ("data", "models", "reports")  # by stages
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # schema/contract.py: beside the file it becomes, with the writer's pid
CONFLICT = re.compile(r"^<<<<<<< ", re.MULTILINE)
RECORD = re.compile(r"^  (?! |- )(\S.*):\n", re.MULTILINE)  # a stage's first line in dvc.lock


def mend() -> list[str]:
    """Mend what ended processes left in this project; return what was done, a line each.

    Nothing is touched while another `dvc` holds DVC's lock, and no file of a living process ever.

    Raises:
        ValueError: dvc.lock holds a merge conflict, which is a person's to decide.
    """
    done = []
    with _held(DVC_TMP / "lock") as alone, _held(DVC_TMP / "rwlock.lock") as undisturbed:
        if alone and undisturbed:
            done = [*_mend_lock(layout.DVC_LOCK), *_mend_list(DVC_TMP / "rwlock")]
    return [*done, *_remove_temporaries()]


def keep() -> None:
    """Copy dvc.lock to where `mend` finds it; not that of an experiment, whose copy of the project is thrown away."""
    if not layout.DVC_LOCK.is_file() or layout.project() != Path.cwd().resolve():
        return
    with suppress(OSError):  # a precaution: a full disk is for the stage's own files to report
        layout.state().mkdir(parents=True, exist_ok=True)
        temporary = _copy().with_name(f"{layout.DVC_LOCK}.{os.getpid()}.tmp")
        temporary.write_bytes(layout.DVC_LOCK.read_bytes())
        os.replace(temporary, _copy())


def _copy() -> Path:
    return layout.state() / layout.DVC_LOCK


def salvage(text: str, *, before: Sequence[str] = ()) -> str:
    """Return the whole records of a dvc.lock that broke off, and for those it lost the records of earlier ones.

    A text without fault is returned as it is.

    Args:
        before: earlier dvc.locks, the latest first. DVC compares each record with the files: an old one does no harm.
    """
    records = _records(text)
    if records and all(_is_whole(record) for record in records.values()):
        return text
    kept = {name: record for name, record in records.items() if _is_whole(record)}
    for earlier in before:
        kept |= {name: record for name, record in _records(earlier).items() if name not in kept and _is_whole(record)}
    return "schema: '2.0'\nstages:\n" + "".join(kept.values()) if kept else ""


def _records(text: str) -> dict[str, str]:
    starts = list(RECORD.finditer(text))
    ends = [*(match.start() for match in starts), len(text)][1:]
    return {match[1]: text[match.start() : end] for match, end in zip(starts, ends, strict=True)}


def _is_whole(record: str) -> bool:
    # what comes last in a record: its outputs
    try:
        (parsed,) = dvc_lock.parse(f"schema: '2.0'\nstages:\n{record}", where="a record").values()
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(parsed.outs) and record.endswith("\n")


def _mend_lock(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text()
    conflict = CONFLICT.search(text)
    if conflict:
        number = len(text[: conflict.start()].splitlines()) + 1
        raise ValueError(
            f"{path}: line {number}: found a merge conflict of git, wanted one of its sides: "
            f"`git checkout --ours {path}` or `--theirs`, then `git add {path}`; `dvc repro` runs what it lacks"
        )
    mended = salvage(text)
    if mended == text and text:
        return []
    copied = _copy().read_text() if _copy().is_file() else ""
    mended = salvage(text, before=(copied, _committed(path)))
    if mended:
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(mended)
        os.replace(temporary, path)
    else:
        path.unlink()
    return [f"{path}: broke off when dvc was killed; kept {len(_records(mended))} whole records"]


def _committed(path: Path) -> str:
    command = ["git", "--no-optional-locks", "show", f"HEAD:./{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _mend_list(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text())
    except json.JSONDecodeError:
        path.unlink()
        return [f"{path}: broke off when dvc was killed; removed"]
    write = {name: by for name, by in listed.get("write", {}).items() if _is_dvc(by["pid"])}
    read = {name: [by for by in all_by if _is_dvc(by["pid"])] for name, all_by in listed.get("read", {}).items()}
    kept = {key: value for key, value in (("write", write), ("read", {n: by for n, by in read.items() if by})) if value}
    if kept == {key: value for key, value in listed.items() if value}:
        return []
    path.write_text(json.dumps(kept))
    return [f"{path}: removed the entries of ended processes"]


def _is_dvc(pid: int) -> bool:
    import psutil

    try:
        return _lives(pid) and any(Path(part).name == "dvc" for part in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's: we cannot tell
        return True


def _lives(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # dead, and nobody has asked for its status
    except psutil.NoSuchProcess:
        return False


def _remove_temporaries() -> Iterator[str]:
    """Remove half-written files: DVC would count them to a folder that a stage depends on."""
    for folder in WRITTEN_TO:
        for path in sorted(Path(folder).rglob(".*.tmp")):
            match = TEMPORARY.fullmatch(path.name)
            if match and path.is_file() and not _lives(int(match[1])):
                path.unlink(missing_ok=True)
                yield f"removed {path}, half written"


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold one of DVC's locks, which are kernel locks, for the block; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        yield take(file, timeout_s=0.0)
