"""The challenger: the replica that `select` chose, with proof that it was made from what lies here."""

from pathlib import Path
from typing import NamedTuple

from rootstock import layout
from rootstock.ops import dvc_lock, fingerprint, runs
from rootstock.schema import selection as selection_schema

SHARDS, MANIFEST = layout.shards(layout.TARGET), layout.manifest(layout.TARGET)
AGAIN = "`make repro` brings everything to one state"


class ChallengerError(ValueError):
    """A tree that was not reproduced whole; the message names the file, the hash found and the hash wanted."""


class Challenger(NamedTuple):
    """What stands for promotion."""

    record: dict  # as the ledger has it: replica, dvc_hash, run_id, git_revision
    model: Path  # its folder
    predictions: Path
    view: str  # by which it was selected
    num_candidates: int  # from which it was selected on val
    shards_hash: str
    manifest_hash: str


def find() -> Challenger:
    """Read the selection, and compare what lies here with what dvc.lock says of it.

    Raises:
        FileNotFoundError: there is no selection, no dvc.lock or no file that they name.
        ChallengerError: a file is not the one that its stage wrote, or a stage ran on other files than lie here.
    """
    if not layout.SELECTION.is_file():
        raise FileNotFoundError(f"{layout.SELECTION} is missing; `make repro` makes it")
    selection = selection_schema.read(layout.SELECTION)
    names = selection["selected"]["strategy"], selection["selected"]["seed"]
    replica = layout.replica(*names)
    model, predictions = layout.finetune(*names), layout.predictions(*names)
    records = dvc_lock.current()
    found = {str(path): _hash(path) for path in (SHARDS, MANIFEST, model, predictions, layout.SELECTION)}
    for path in found:
        _compare(path, found[path], _output(records, path), "its stage wrote")
    for stage, path in (
        (f"finetune@{replica}", SHARDS),
        (f"evaluate@{replica}", SHARDS),
        (f"evaluate@{replica}", model),
        (f"shards@{layout.TARGET}", MANIFEST),
    ):
        _compare(str(path), found[str(path)], records[stage].deps.get(str(path)), f"{stage} ran on")
    evaluated = layout.predictions(*names).parent.parent  # all that `select` read
    _compare(str(evaluated), _hash(evaluated), records["select"].deps.get(str(evaluated)), "select ran on")
    run = runs.read(layout.run("finetune", *names))
    record = {
        "replica": replica,
        "dvc_hash": found[str(model)],
        "run_id": run["run_id"],
        "git_revision": run["environment"]["git_revision"],
    }
    return Challenger(
        record, model, predictions, selection["view"], len(selection["candidates"]), found[str(SHARDS)],
        found[str(MANIFEST)],
    )  # fmt: skip


def _hash(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; `dvc checkout` or `dvc pull` brings it, {AGAIN}")
    return fingerprint.dvc_hash(path)


def _output(records: dict[str, dvc_lock.Record], path: str) -> str | None:
    producer = dvc_lock.producer(records, path)
    return producer and producer.outs.get(path)


def _compare(path: str, found: str, wanted: str | None, what: str) -> None:
    if found != wanted:
        raise ChallengerError(
            f"{path}: found hash {found}, wanted {wanted or 'one in dvc.lock'}, which {what}; {AGAIN}"
        )
