"""What a person means by a model: its stage, and the dvc.lock that recorded it, here or in git's history."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.promote import Promote
from rootstock.ops import dvc_lock
from rootstock.ops.dvc_lock import Record
from rootstock.ops.lineage import tracked
from rootstock.schema import promotion

RUNS = Path("reports/runs")
# a line is told in this order, which is an order of dependence too
ORDER = (
    *(f"{stage}@{layout.SOURCE}" for stage in ("fetch", "manifest", "stats", "shards")),
    "pretrain",
    *(f"{stage}@{layout.TARGET}" for stage in ("fetch", "manifest", "stats", "shards")),
)
RUN_ID = re.compile(r"[0-9a-f]{32}")
REGISTERED = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>.+))")
WANTED = (
    "wanted a replica (full-0), champion, the path of an output (models/finetune/full-0), an MLflow run id, or a name "
    "in the registry (models:/demo/1)"
)


class Subject(NamedTuple):
    """A stage, with the records of the dvc.lock that knows it."""

    asked: str
    stage: str  # the last of the chain, such as evaluate@full-0
    records: dict[str, Record]
    revision: str | None  # that holds this dvc.lock; None: the present one
    notes: list[str]  # what a person should know about how it was found

    @property
    def chain(self) -> list[Record]:
        """The stage and all it depends on, sources first."""
        place = {name: number for number, name in enumerate(ORDER)}
        found = dvc_lock.upstream(self.records, self.stage)
        return sorted(found, key=lambda record: place.get(record.name, len(ORDER)))

    def run(self, record: Record) -> dict | None:
        """Return what reports/runs says of a stage that has a run.

        None where it has none, or the file is gone or not the recorded one: it may be of another run.
        """
        path = next((out for out in record.outs if Path(out).parent == RUNS), None)
        if path is None:
            return None
        if self.revision is None:
            data = Path(path).read_bytes() if Path(path).is_file() else None
        else:
            data = dvc_lock.content(self.revision, path)
        if data is None or hashlib.md5(data, usedforsecurity=False).hexdigest() != record.outs[path]:
            return None
        return json.loads(data)

    def model(self) -> tuple[str, str] | None:
        """Return path and hash of the chain's last model; None where it makes none."""
        for record in reversed(self.chain):
            for path, md5 in record.outs.items():
                if Path(path).parent == layout.finetune("", 0).parent or Path(path) == layout.PRETRAIN:
                    return path, md5
        return None


def find(name: str) -> Subject:
    """Find what a name stands for.

    Args:
        name: a replica, `champion`, an output's path, a run id of MLflow, or a name in the registry.

    Raises:
        ValueError: nothing of this name is known; says what is wanted.
        FileNotFoundError: nothing has been reproduced yet.
    """
    if match := REGISTERED.fullmatch(name):
        return _hash(name, _registered_hash(name, **match.groupdict()))
    if name == "champion":
        return _champion(name, load_section(layout.PARAMS, Promote, "promote").model)
    if Path(name).parent == layout.champion("any").parent:
        return _champion(name, Path(name).name)
    if RUN_ID.fullmatch(name):
        return _run(name, name)
    records = dvc_lock.current()
    for stage in (f"evaluate@{name}", f"finetune@{name}", name):
        if stage in records:
            return Subject(name, stage, records, None, [])
    producer = dvc_lock.producer(records, Path(name).as_posix())
    if producer is not None:
        return Subject(name, _judged(records, producer), records, None, [])
    replicas = ", ".join(stage.partition("@")[2] for stage in records if stage.startswith("evaluate@"))
    raise ValueError(f"found no {name!r} in {layout.DVC_LOCK}; {WANTED}; replicas here: {replicas or 'none'}")


def _judged(records: dict[str, Record], record: Record) -> str:
    """The evaluation of a fine-tuned model instead of its training, where there is one: the chain goes on to it."""
    replica = record.name.partition("@")[2]
    evaluation = f"evaluate@{replica}"
    return evaluation if record.name == f"finetune@{replica}" and evaluation in records else record.name


def _champion(asked: str, model: str) -> Subject:
    champion = promotion.champion(promotion.read(layout.PROMOTIONS), model)
    if champion is None:
        raise ValueError(f"{layout.PROMOTIONS}: found no champion of {model}; `rootstock promote` makes one")
    return _hash(asked, champion["dvc_hash"])


def _hash(asked: str, md5: str) -> Subject:
    """The stage that wrote an output of this hash: now, or at the first revision that recorded it."""
    for revision, records in _locks(md5):
        for record in records.values():
            if md5 in record.outs.values():
                notes = [] if revision is None else [f"no longer in {layout.DVC_LOCK}: read at {revision[:12]}"]
                return Subject(asked, _judged(records, record), records, revision, notes)
    raise ValueError(f"{asked}: found no {layout.DVC_LOCK}, here or in git, with its hash {md5}; was it committed?")


def _locks(md5: str) -> Iterator[tuple[str | None, dict[str, Record]]]:
    if layout.DVC_LOCK.is_file() and md5 in layout.DVC_LOCK.read_text():
        yield None, dvc_lock.current()
    # a hash also leaves a file: of the revisions that changed its number, the first ones have it
    for revision in dvc_lock.revisions_with(md5, layout.DVC_LOCK):
        yield revision, dvc_lock.at(revision)


def _run(asked: str, run_id: str) -> Subject:
    """The stage whose result came from a run of MLflow."""
    for path in sorted(RUNS.glob("*.json")):
        if json.loads(path.read_text()).get("run_id") == run_id:
            records = dvc_lock.current()
            stage = dvc_lock.producer(records, path.as_posix())
            if stage is not None:
                return Subject(asked, _judged(records, stage), records, None, [])
    for revision in dvc_lock.revisions_with(run_id, RUNS):
        if found := _committed_run(asked, run_id, revision):
            return found
    return _tracked_run(asked, run_id)


def _committed_run(asked: str, run_id: str, revision: str) -> Subject | None:
    records = dvc_lock.at(revision)
    for record in records.values():
        for out in record.outs:
            if Path(out).parent == RUNS and run_id.encode() in (dvc_lock.content(revision, out) or b""):
                note = f"this run's result is no longer in {layout.DVC_LOCK}: read at {revision[:12]}"
                return Subject(asked, _judged(records, record), records, revision, [note])
    return None


def _tracked_run(asked: str, run_id: str) -> Subject:
    """A run whose result was never kept in git: by what MLflow says that it read."""
    tags = tracked.run_tags(layout.project(), run_id)
    if tags is None:
        raise ValueError(f"found no run {run_id}, neither in {RUNS}, nor in git, nor in the MLflow store")
    stage = tags.get("dvc.stage") or tags.get("stage", "?")
    inputs = {name.removeprefix("input."): md5 for name, md5 in tags.items() if name.startswith("input.")}
    for path, md5 in inputs.items():
        for revision, records in _locks(md5):
            producer = dvc_lock.producer(records, path)
            if producer is None or producer.outs.get(path) != md5:
                continue
            where = layout.DVC_LOCK if revision is None else revision[:12]
            note = f"no {layout.DVC_LOCK} holds the result of this run of {stage}; shown is what it read, from {where}"
            return Subject(asked, producer.name, records, revision, [note])
    raise ValueError(f"run {run_id} of {stage}: no {layout.DVC_LOCK}, here or in git, holds its result or its inputs")


def _registered_hash(asked: str, *, model: str, version: str | None, alias: str | None) -> str:
    tags = tracked.version_tags(layout.project(), model=model, version=version, alias=alias)
    if tags is None:
        raise ValueError(f"found no {asked} in the registry; `rootstock promote` registers a champion")
    if "rootstock.dvc_hash" not in tags:
        raise ValueError(f"{asked}: found no tag rootstock.dvc_hash; it was not registered by `rootstock promote`")
    return tags["rootstock.dvc_hash"]
