"""Rehash everything that a lineage names and compare it with what was recorded: every byte is read, no cache asked.

DVC and `data/sums` remember hashes by inode, size and time of change, and so overlook a flipped bit that keeps them.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rootstock import layout
from rootstock.config.load import read_yaml
from rootstock.data.archives import ArchiveError
from rootstock.data.sources.flowers102 import INFLATED, TAR
from rootstock.data.sums import sha256
from rootstock.ops import configuration, fingerprint
from rootstock.ops.collection import open_collection
from rootstock.ops.dvc_lock import Record
from rootstock.ops.explanation import code_changes
from rootstock.ops.lineage import contents, tracked
from rootstock.ops.lineage.declared import Declared, declared
from rootstock.ops.lineage.subject import Subject
from rootstock.ops.store import StoreError
from rootstock.schema import promotion
from rootstock.schema import source as source_schema
from rootstock.schema.contract import ContractError, read_json

ABSENT = object()


class Finding(NamedTuple):
    """One thing that is not as recorded, or is not here."""

    state: Literal["differs", "absent", "unknown"]  # unknown: MLflow's store cannot say
    what: str  # a path, or a file and what is meant in it
    found: str
    wanted: str
    note: str = ""


class Checked(NamedTuple):
    """A stage after its check."""

    stage: str
    num_compared: int
    findings: list[Finding]

    @property
    def state(self) -> Literal["identical", "differs", "absent"]:
        """The worst of its findings."""
        states = {finding.state for finding in self.findings}
        return "differs" if "differs" in states else "absent" if "absent" in states else "identical"


class _Present:
    """What lies in the working directory, each file hashed once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.chain = subject.chain
        self.params = read_yaml(layout.PARAMS)
        self.declared: dict[str, Declared] = declared(Path())
        self._hashes: dict[str, str | None] = {}
        # the same module is a dependency of many stages
        self.code_change = functools.cache(functools.partial(code_changes.change, root=Path()))

    def md5(self, path: str) -> str | None:
        """A file's or folder's hash as DVC writes it; None where there is nothing."""
        if path not in self._hashes:
            self._hashes[path] = fingerprint.dvc_hash(Path(path)) if Path(path).exists() else None
        return self._hashes[path]


def verify(subject: Subject) -> list[Checked]:
    """Compare a lineage with what lies here, stage by stage, sources first.

    Returns:
        A row each stage of the chain: what differs from the record, and what is not here to be compared.

    Raises:
        ValueError: params.yaml or dvc.yaml cannot be read.
        OSError: a file cannot be read.
    """
    present = _Present(subject)
    checks = (_archives, _outs, _deps, _params, _declaration, _environment, _run)
    checked = []
    for record in present.chain:
        answers = [answer for check in checks for answer in check(record, present)]
        findings = [answer for answer in answers if answer is not None]
        checked.append(Checked(record.name, len(answers), findings))
    return [*checked, *_champion(subject)]


def _champion(subject: Subject) -> list[Checked]:
    """The folder of a champion against the ledger, where the subject's model is one."""
    model = subject.model()
    champions = {line["model"]: line["champion_after"] for line in promotion.read(layout.PROMOTIONS)}
    checked = []
    for name, champion in champions.items():
        if model is not None and champion is not None and champion["dvc_hash"] == model[1]:
            folder = layout.champion(name)
            found = fingerprint.dvc_hash(folder) if folder.exists() else None
            wanted = champion["bundle_hash"]
            note = contents.explain(folder, wanted) if found not in (None, wanted) else ""
            finding = _compare(str(folder), found, wanted, note)
            checked.append(Checked(f"decision ({name})", 1, [finding] if finding else []))
    return checked


# Each check yields an answer for each thing that it compared: None where it is as recorded.
_Answers = Iterator[Finding | None]


def _compare(what: str, found: str | None, wanted: str, note: str = "") -> Finding | None:
    if found is None:
        return Finding("absent", what, "nothing", wanted, note)
    return None if found == wanted else Finding("differs", what, found, wanted, note)


def _archives(record: Record, present: _Present) -> _Answers:
    """The raw files against source.json, which is all that DVC tracks of them."""
    stage, _, dataset = record.name.partition("@")
    note = layout.source(dataset)
    if stage != "fetch" or not note.is_file():
        return
    if present.params.get("fetch", {}).get(dataset) != record.params.get(f"fetch.{dataset}"):
        yield Finding("absent", f"{dataset}: archives", "another collection in params.yaml", "the recorded one")
        return
    source = open_collection(dataset)
    try:
        rows = source_schema.read(note)["files"]
    except ContractError as error:  # its own hash differs too; this says how
        yield Finding("differs", str(note), str(error), "a list of archives")
        return
    for row in rows:
        try:
            path = source.path(row["name"])
        except ValueError:  # in none of the folders
            path = None
        found = sha256(path, cache=None) if path is not None and path.is_file() else None
        yield _compare(str(path or row["name"]), found and f"sha256 {found}", f"sha256 {row['sha256']}")
    yield from _inflated(source)
    if present.params["fetch"][dataset]["collection"] == "folder":
        yield from _new_images(source, {row["name"] for row in rows})


def _new_images(folder: Any, known: set[str]) -> _Answers:
    try:
        names = {record.archive for record in folder.records(split_seed=0, val_fraction=None)}
    except ArchiveError as error:  # an empty class, or no folder at all: its images are missing above
        yield Finding("absent", "new images", str(error), "a folder that can be listed")
        return
    for name in sorted(names - known):
        yield Finding("differs", str(folder.path(name)), "a new image", "none")


def _inflated(source: Any) -> _Answers:
    """The plain tar that later stages read instead of the compressed original."""
    note = source.own / INFLATED
    if note.is_file():
        tar, wanted = source.own / TAR, read_json(note)["tar_sha256"]
        found = sha256(tar, cache=None) if tar.is_file() else None
        yield _compare(str(tar), found and f"sha256 {found}", f"sha256 {wanted}")


def _outs(record: Record, present: _Present) -> _Answers:
    for path, wanted in record.outs.items():
        found = present.md5(path)
        note = contents.explain(Path(path), wanted) if found not in (None, wanted) else ""
        yield _compare(path, found, wanted, note)


def _deps(record: Record, present: _Present) -> _Answers:
    """Code against the record; data against the record of the stage that writes them."""
    for path, wanted in record.deps.items():
        writer = next((other for other in present.chain if path in other.outs), None)
        if writer is not None:
            note = f"{writer.name} was run again since" if writer.outs[path] != wanted else ""
            yield _compare(f"{layout.DVC_LOCK}: {path}", writer.outs[path], wanted, note)
            continue
        found = present.md5(path)
        if found is None and path.endswith(".py"):
            yield Finding("differs", path, "nothing", wanted, "the module is gone")
            continue
        note = present.code_change(path, wanted).text if found != wanted and path.endswith(".py") else ""
        yield _compare(path, found, wanted, note)


def _params(record: Record, present: _Present) -> _Answers:
    for key, wanted in record.params.items():
        value: Any = present.params
        for name in key.split("."):
            value = value.get(name, ABSENT) if isinstance(value, dict) else ABSENT
        if value is ABSENT:
            yield Finding("differs", f"{layout.PARAMS}: {key}", "nothing", "a value")
            continue
        changes = configuration.differences(wanted, value, key)
        # 1 and 1.0 are equal to Python, and to a result
        yield None
        for change in changes:
            name, _, values = change.partition(": ")
            old, _, new = values.partition(" → ")
            yield Finding("differs", f"{layout.PARAMS}: {name}", new, old)


def _declaration(record: Record, present: _Present) -> _Answers:
    now = present.declared.get(record.name)
    if now is None:
        yield Finding("differs", "dvc.yaml", f"no stage {record.name}", record.command)
        return
    yield _compare("dvc.yaml: cmd", now.command, record.command)
    for kind, listed, recorded in (
        ("deps", now.deps, set(record.deps)),
        ("params", now.params, set(record.params)),
        ("outs", now.outs, set(record.outs)),
    ):
        added, gone = (", ".join(sorted(names)) or "nothing" for names in (listed - recorded, recorded - listed))
        yield None if listed == recorded else Finding("differs", f"dvc.yaml: {kind}", f"{added} more", f"{gone} more")


def _environment(record: Record, present: _Present) -> _Answers:
    """The pinned packages against those of the run; data stages have none."""
    run = present.subject.run(record)
    wanted = run and run["environment"]["lock_sha256"]
    if wanted is None:
        return
    found = sha256(layout.LOCK, cache=None) if layout.LOCK.is_file() else None
    yield _compare(str(layout.LOCK), found and f"sha256 {found}", f"sha256 {wanted}", "the run's packages")


def _run(record: Record, present: _Present) -> _Answers:
    """What MLflow says the run read against what dvc.lock says."""
    run = present.subject.run(record)
    if run is None or run["run_id"] is None:
        return
    what = f"MLflow run {run['run_id']}"
    try:
        tags = tracked.run_tags(layout.project(), run["run_id"])
    except StoreError as error:
        yield Finding("unknown", what, str(error), "its tags")
        return
    if tags is None:
        yield Finding("unknown", what, "no such run in the store", "its tags")
        return
    for path, wanted in record.deps.items():
        tag = f"input.{path}"
        if tag in tags:
            yield _compare(f"{what}: {tag}", tags[tag], wanted, "the run read other data than dvc.lock says")
