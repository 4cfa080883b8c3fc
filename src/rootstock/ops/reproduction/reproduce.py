"""Build a model again at its recorded revision, from nothing, and say whether it is the same."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rootstock import layout
from rootstock.config.load import parse_yaml
from rootstock.config.section import parse
from rootstock.config.select import Select
from rootstock.ops import configuration, dvc_lock
from rootstock.ops.dvc_lock import Record
from rootstock.ops.lineage import subject
from rootstock.ops.reproduction import evidence, installed, worktree
from rootstock.ops.reproduction.outcome import ALWAYS_DIFFERS, Band, Outcome, band, compare, judge, num_compared

DIGITS = 12
GIGABYTE = 1e9


class Origin(NamedTuple):
    """Where a chain was recorded."""

    revision: str
    records: dict[str, Record]  # of its dvc.lock
    notes: list[str]


class Report(NamedTuple):
    """A reproduction."""

    outcome: Outcome
    text: str  # for the terminal


def reproduce(name: str, *, keep: bool, say: Callable[[str], None]) -> Report:
    """Rebuild what a name stands for in a clean worktree, and compare each stage's outputs with the recorded hashes.

    Args:
        name: as `subject.find` takes it.
        keep: leave the worktree where it is.
        say: takes a line of progress.

    Raises:
        ValueError: the name is unknown, its result is not committed, or a stage fails at its revision.
        OSError: the disk is too full.
    """
    found = subject.find(name)
    origin = locate(found)
    chain = [origin.records[record.name] for record in found.chain]
    say(f"{name}: {found.stage}, {len(chain)} stages at revision {origin.revision[:DIGITS]}")
    for note in [*found.notes, *origin.notes]:
        say(f"  {note}")
    _check_disk(chain)
    folder_name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{found.stage}-{origin.revision[:DIGITS]}")
    with worktree.checkout(origin.revision, name=folder_name, keep=keep) as folder:
        threads = _num_threads(chain, origin.revision)
        worktree.repro(folder, found.stage, num_stages=len(chain), num_threads=threads, say=say)
        differences = compare(chain, dvc_lock.current(folder))
        metric, seeds = _metrics(found.stage, origin, folder)
        outcome = judge(differences, metric=metric, seeds=seeds)
        shown = []
        if differences:
            shown = evidence.gather(outcome, chain=chain, folder=folder, revision=origin.revision)
        packages = installed.differences((dvc_lock.content(origin.revision, layout.LOCK) or b"").decode())
        kept = [f"kept in {folder}; `git worktree remove --force` removes it"] if keep else []
    return Report(outcome, _text(outcome, chain, origin, [*shown, *_packages(packages), *kept]))


def locate(found: subject.Subject) -> Origin:
    """Find the revision that recorded a chain: the first whose dvc.lock has every output and whose code is that one's.

    Raises:
        ValueError: no commit has it.
    """
    wanted = {record.name: _compared(record) for record in found.chain}
    first: Origin | None = None
    for revision in dvc_lock.revisions_of(layout.DVC_LOCK):
        lock = (dvc_lock.content(revision, layout.DVC_LOCK) or b"").decode()
        if not all(md5 in lock for outs in wanted.values() for md5 in outs.values()):
            continue  # quicker than reading it as YAML
        records = dvc_lock.at(revision)
        if not all(name in records and _compared(records[name]) == outs for name, outs in wanted.items()):
            continue
        notes = _strangers(revision, [records[record.name] for record in found.chain])
        if not notes:
            return Origin(revision, records, [])
        first = first or Origin(revision, records, notes)
    if first is None:
        raise ValueError(
            f"{found.asked}: found no commit whose {layout.DVC_LOCK} holds all outputs of {found.stage}, wanted one to "
            f"rebuild from; commit {layout.DVC_LOCK}, {layout.PARAMS} and reports/ with the code that made them"
        )
    return first


def _strangers(revision: str, chain: Sequence[Record]) -> list[str]:
    """What a revision holds otherwise than its own dvc.lock says: it cannot be expected to give the same."""
    code = {path: md5 for record in chain for path, md5 in record.deps.items() if path.endswith(".py")}
    changed = [path for path, md5 in code.items() if _md5(dvc_lock.content(revision, path)) != md5]
    notes = [f"at this revision {path} is not what {layout.DVC_LOCK} recorded" for path in changed]
    params = _params(revision)
    for key, wanted in ((key, value) for record in chain for key, value in record.params.items()):
        value: Any = params
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        changes = configuration.differences(wanted, value, key)
        notes += [f"at this revision {layout.PARAMS} is not what was recorded: {change}" for change in changes]
    return notes


def _md5(data: bytes | None) -> str | None:
    return None if data is None else hashlib.md5(data, usedforsecurity=False).hexdigest()


def _params(revision: str) -> dict[str, Any]:
    text = (dvc_lock.content(revision, layout.PARAMS) or b"").decode()
    return parse_yaml(text, where=f"{revision[:DIGITS]}:{layout.PARAMS}")


def _compared(record: Record) -> dict[str, str]:
    return {path: md5 for path, md5 in record.outs.items() if _is_compared(path)}


def _is_compared(path: str) -> bool:
    return Path(path).parent != ALWAYS_DIFFERS


def _check_disk(chain: Sequence[Record]) -> None:
    """Compare the room on the disk with what the outputs take that lie here, once as files and once in the cache."""
    outs = [layout.project() / path for record in chain for path in record.outs]
    files = [file for out in outs for file in ([out] if out.is_file() else out.rglob("*"))]
    needed = 2 * sum(file.stat().st_size for file in files if file.is_file())
    free = shutil.disk_usage(layout.project()).free
    if free < needed:
        raise OSError(
            f"{layout.state()}: found {free / GIGABYTE:.1f} GB free, wanted {needed / GIGABYTE:.1f} GB to rebuild in; "
            "make room, then run it again"
        )


def _num_threads(chain: Sequence[Record], revision: str) -> int | None:
    """The threads of the recorded runs, on which the last bits of the weights depend; None where they disagree."""
    paths = [path for record in chain for path in record.outs if not _is_compared(path)]
    runs = [json.loads(data) for path in paths if (data := dvc_lock.content(revision, path)) is not None]
    threads = {run["hardware"]["num_threads"] for run in runs}
    return threads.pop() if len(threads) == 1 else None


def _metrics(stage: str, origin: Origin, folder: Path) -> tuple[float | None, Band | None]:
    """The rebuilt model's metric, and where one more training of its strategy falls; by what `select` chooses with.

    The recorded replica is one of the seeds: were all of them drawn from the same noise, so was the rebuilt one.
    """
    if not stage.startswith("evaluate@"):
        return None, None
    select = parse(Select, _params(origin.revision)["select"], where=f"{origin.revision[:DIGITS]}: select")

    def number(data: bytes) -> float:
        return json.loads(data)["val"][select.view][select.metric]["value"]

    strategy, _, own = stage.partition("@")[2].rpartition("-")
    recorded = []
    for name in origin.records:
        kind, _, seed = name.rpartition("-")
        if kind == f"evaluate@{strategy}":
            data = dvc_lock.content(origin.revision, layout.metrics(strategy, int(seed)))
            recorded += [number(data)] if data is not None else []
    rebuilt = folder / layout.metrics(strategy, int(own))
    return number(rebuilt.read_bytes()), band(recorded)


def _packages(differences: list[str]) -> list[str]:
    if not differences:
        return [f"the installed packages are those of the revision's {layout.LOCK}"]
    shown = ", ".join(differences[:5]) + (", …" if len(differences) > 5 else "")
    return [f"{len(differences)} installed packages are not those of the revision's {layout.LOCK}: {shown}"]


def _text(outcome: Outcome, chain: Sequence[Record], origin: Origin, lines: list[str]) -> str:
    equal = num_compared(chain) - len(outcome.differences)
    return "\n".join(
        [
            "",
            outcome.text,
            f"  {outcome.why}",
            f"  {equal} of {num_compared(chain)} outputs of {len(chain)} stages have the hashes of {layout.DVC_LOCK} "
            f"at {origin.revision[:DIGITS]}",
            f"  left out: {ALWAYS_DIFFERS}/*.json, which note times and so differ always",
            *(f"  {line}" for line in lines),
        ]
    )
