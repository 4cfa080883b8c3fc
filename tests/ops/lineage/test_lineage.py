"""Where a model comes from, and whether what lies here is it: on the small reproduced project."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import small_project

from rootstock import layout
from rootstock.ops import dvc_lock
from rootstock.ops.lineage import declared, lineage, subject, verify

REPLICA = "full-0"
CHAIN = [
    *(f"{stage}@source" for stage in ("fetch", "manifest", "stats", "shards")),
    "pretrain",
    *(f"{stage}@target" for stage in ("fetch", "manifest", "stats", "shards")),
    "finetune@full-0",
    "evaluate@full-0",
]
SEED = 20261123
NUM_CHANGES = 20


@pytest.fixture(scope="module")
def project(reproduced, tmp_path_factory) -> Path:
    """A copy that this file's tests restore after each change."""
    return small_project.copy(reproduced, tmp_path_factory.mktemp("lineage") / "project")


@pytest.fixture(autouse=True)
def inside(project, monkeypatch):
    monkeypatch.chdir(project)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "ROOTSTOCK_ARCHIVES"):
        monkeypatch.delenv(name, raising=False)
    resolved: dict[bytes, dict] = {}

    def remembered(root: Path) -> dict:
        # DVC needs seconds to resolve dvc.yaml; it is the same in most tests
        key = (root / "dvc.yaml").read_bytes() + (root / "params.yaml").read_bytes()
        if key not in resolved:
            resolved[key] = declared.declared(root)
        return resolved[key]

    monkeypatch.setattr(verify, "declared", remembered)


@pytest.fixture(scope="module")
def records(project) -> dict:
    """dvc.lock, which takes a second to parse."""
    return dvc_lock.current(project)


@pytest.fixture
def model(records) -> subject.Subject:
    """The replica's evaluation, which no test's change moves."""
    return subject.Subject(REPLICA, f"evaluate@{REPLICA}", records, None, [])


# ------------------------------------------------------------------------------------------------------------ changes


class Change(NamedTuple):
    """One change of one file, and the stage where the difference starts."""

    kind: str
    path: Path
    stage: str


def flip(path: Path, position: int) -> None:
    """Change one byte in place; size, inode and time of change stay."""
    before = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


def images() -> list[Path]:
    return sorted(Path("images").rglob("*.png"))


def shard_files(dataset: str) -> list[Path]:
    return sorted(layout.shards(dataset).glob("*.tar"))


def flipped(kind: str, path: Path, stage: str):
    """A kind of change: a random byte of a file."""

    def apply(rng: np.random.Generator) -> Change:
        flip(path, int(rng.integers(path.stat().st_size)))
        return Change(kind, path, stage)

    return apply


def edited(kind: str, path: str, stage: str, old: str, new: str):
    """A kind of change: other words in a text."""

    def apply(rng: np.random.Generator) -> Change:
        replace(Path(path), old, new)
        return Change(kind, Path(path), stage)

    return apply


def code(path: str, stage: str):
    """A kind of change: a line more in a module."""

    def apply(rng: np.random.Generator) -> Change:
        with open(path, "a") as file:
            file.write(f"\nADDED = {int(rng.integers(1000))}\n")
        return Change("code", Path(path), stage)

    return apply


def kinds(rng: np.random.Generator) -> dict[str, list[Callable]]:
    """The kinds of change, each with its places; which of them is drawn."""
    model = layout.finetune("full", 0)
    found: dict[str, list[Callable]] = {
        # both collections are the same folder
        "image": [flipped("image", path, "fetch@source") for path in rng.choice(images(), 3)],
        "source.json": [edited("source.json", str(layout.source("target")), "fetch@target", '"off"', '"own"')],
        "model.json": [edited("model.json", str(model / "model.json"), "finetune@full-0", '"fern"', '"farn"')],
        "pretrain weights": [flipped("weights", layout.PRETRAIN / "weights.safetensors", "pretrain")],
        "finetune weights": [flipped("weights", model / "weights.safetensors", "finetune@full-0")],
        "predictions": [flipped("predictions", layout.predictions("full", 0), "evaluate@full-0")],
        "metrics": [edited("metrics", str(layout.metrics("full", 0)), "evaluate@full-0", "0.", "0.0")],
        "params": [
            edited("params", "params.yaml", "pretrain", "epochs: 2", "epochs: 3"),
            edited("params", "params.yaml", "stats@source", "crop_size: 24", "crop_size: 23"),
            edited("params", "params.yaml", "evaluate@full-0", "batch_size: 256", "batch_size: 128"),
        ],
        "command": [
            edited("command", "dvc.yaml", "stats@source", "-m pipeline.stats", "-B -m pipeline.stats"),
            edited("command", "dvc.yaml", "finetune@full-0", "-m pipeline.finetune", "-B -m pipeline.finetune"),
        ],
        "library": [
            code("src/rootstock/rng.py", "fetch@source"),
            code("src/rootstock/data/moments.py", "stats@source"),
            code("src/rootstock/data/shard_plan.py", "shards@source"),
            code("src/rootstock/training/loop.py", "pretrain"),
            code("src/rootstock/training/transfer.py", "finetune@full-0"),
            code("src/rootstock/evaluation/metrics.py", "evaluate@full-0"),
        ],
        "script": [
            code("pipeline/manifest.py", "manifest@source"),
            code("pipeline/pretrain.py", "pretrain"),
            code("pipeline/evaluate.py", "evaluate@full-0"),
        ],
    }
    for dataset in layout.DATASETS:
        places = {
            "manifest": (layout.manifest(dataset), "manifest"),
            "shard": (shard_files(dataset)[int(rng.integers(len(shard_files(dataset))))], "shards"),
            "index": (layout.shards(dataset) / "index.parquet", "shards"),
            "stats json": (layout.stats(dataset), "stats"),
            "stats npz": (layout.stats_arrays(dataset), "stats"),
        }
        for kind, (path, stage) in places.items():
            found.setdefault(kind, []).append(flipped(kind, path, f"{stage}@{dataset}"))
    return found


def restore(path: Path, project: Path, reproduced: Path) -> None:
    shutil.copy2(reproduced / path, project / path)


def test_every_change_is_found_and_its_stage_named(project, reproduced, model):
    rng = np.random.default_rng(SEED)
    places = kinds(rng)
    # each kind once, the rest drawn again
    names = [*places, *rng.choice(sorted(places), NUM_CHANGES - len(places))]
    assert len(names) == NUM_CHANGES > len(places)
    wrong = []
    for name in names:
        change = places[name][int(rng.integers(len(places[name])))](rng)
        try:
            checked = verify.verify(model)
        finally:
            restore(change.path, project, reproduced)
        findings = {finding.what for one in checked for finding in one.findings}
        named = any(change.path.name in what or change.path.parent.as_posix() in what for what in findings)
        if lineage.first_difference(checked) != change.stage or not named:
            wrong.append((change, lineage.first_difference(checked), findings))
    assert not wrong


def test_other_times_are_no_difference(project, reproduced, model):
    rng = np.random.default_rng(SEED)
    for path in [*images(), *(path for out in ("data", "models", "reports", "src") for path in Path(out).rglob("*"))]:
        os.utime(path, (1e9, 1e9 + int(rng.integers(1000))))
    checked = verify.verify(model)
    assert [one.state for one in checked] == ["identical"] * len(CHAIN)
    assert all(one.num_compared > 30 for one in checked)


def test_a_fresh_clone_is_no_difference(project, tmp_path, records, monkeypatch):
    clone = tmp_path / "clone"
    small_project.run(tmp_path, "git", "clone", "--quiet", str(project), str(clone))
    monkeypatch.chdir(clone)
    bare = {one.stage: one for one in verify.verify(subject.find(REPLICA))}
    assert {one.state for one in bare.values()} == {"absent"}  # data come by dvc, never with git
    assert lineage.first_difference(list(bare.values())) is None

    small_project.run(clone, "dvc", "config", "--local", "cache.dir", str(project / ".dvc/cache"))
    small_project.run(clone, "dvc", "checkout")
    shutil.copytree(project / "images", clone / "images")
    checked = verify.verify(subject.find(REPLICA))
    # the clone has no MLflow store, and no more than that is absent
    assert {one.state for one in checked} == {"identical"}
    unknown = [finding.what for one in checked for finding in one.findings]
    assert unknown == [f"MLflow run {run_id}" for run_id in noted_runs().values()]
    assert not (clone / "mlflow.db").exists()


def test_a_folder_names_its_file_and_a_text_its_meaning(project, reproduced, model):
    weights = layout.PRETRAIN / "weights.safetensors"
    flip(weights, weights.stat().st_size - 1)
    replace(Path("src/rootstock/models/bundle.py"), '"""A model on disk', '"""A model upon disk')
    replace(Path("params.yaml"), "epochs: 2", "epochs: 7")
    try:
        checked = {one.stage: one for one in verify.verify(model)}
    finally:
        for path in (weights, "src/rootstock/models/bundle.py", "params.yaml"):
            restore(Path(path), project, reproduced)
    findings = {finding.what: finding for finding in checked["pretrain"].findings}
    assert findings["models/pretrain"].note == "weights.safetensors differs"
    assert "only comments, docstrings or layout differ" in findings["src/rootstock/models/bundle.py"].note
    epochs = findings["params.yaml: pretrain.training.epochs"]
    assert (epochs.found, epochs.wanted) == ("7", "2")
    assert checked["stats@target"].state == "identical"
    assert "differs first at pretrain" in lineage.verdict(list(checked.values()))


def test_without_dvcs_listing_the_sums_inside_name_the_file(project, reproduced, model, monkeypatch):
    monkeypatch.setattr("rootstock.ops.lineage.contents.CACHE", Path("nowhere"))
    shard = shard_files("target")[0]
    weights = layout.finetune("full", 0) / "weights.safetensors"
    flip(shard, 600)
    flip(weights, weights.stat().st_size - 1)
    try:
        checked = {one.stage: one for one in verify.verify(model)}
    finally:
        restore(shard, project, reproduced)
        restore(weights, project, reproduced)
    assert shard.name in checked["shards@target"].findings[0].note
    assert checked["finetune@full-0"].findings[0].note.startswith("weights.safetensors: found sha256 ")


def test_another_lock_of_packages_is_found_at_the_first_run(project, reproduced, model):
    replace(layout.LOCK, "==", "===")
    try:
        assert lineage.first_difference(verify.verify(model)) == "pretrain"
    finally:
        restore(layout.LOCK, project, reproduced)


# ------------------------------------------------------------------------------------------------------------- lineage


def noted_runs() -> dict[str, str]:
    """The run ids that stages noted; on a busy machine one may have given up waiting for MLflow's."""
    names = {"pretrain": "pretrain", "finetune@full-0": "finetune-full-0", "evaluate@full-0": "evaluate-full-0"}
    notes = {stage: json.loads(Path(f"reports/runs/{name}.json").read_text()) for stage, name in names.items()}
    assert notes
    return {stage: note["run_id"] for stage, note in notes.items() if note["run_id"]}


def test_the_line_is_told_sources_first_with_hash_revision_and_run(project, model):
    traced = lineage.trace(model)
    assert [step.stage for step in traced.steps] == CHAIN
    runs = {step.stage: step.run_id for step in traced.steps if step.run_id}
    assert runs == noted_runs()
    head = small_project.run(project, "git", "rev-parse", "HEAD").strip()
    first = small_project.run(project, "git", "rev-parse", "HEAD~1").strip()
    assert traced.steps[0].revision == head  # it recorded what the data stages wrote
    assert traced.steps[4].revision == first  # the run's code
    text = lineage.text(traced)
    assert max(map(len, text.splitlines())) <= lineage.LINE_WIDTH
    for step in traced.steps:
        assert step.stage in text
        assert all(md5[:12] in text for path, md5 in step.outs.items() if "reports/runs" not in path)
    assert f"{len(images())} files" in text


def test_json_has_whole_hashes(model):
    told = json.loads(lineage.to_json(lineage.trace(model), None))
    assert len(told["steps"][0]["archives"]) == len(images())
    assert told["steps"][-1]["outs"]["reports/evaluate/full-0/predictions.parquet"] in Path("dvc.lock").read_text()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("full-1", "evaluate@full-1"),
        ("models/finetune/full-0/", "evaluate@full-0"),
        ("reports/evaluate/full-0/predictions.parquet", "evaluate@full-0"),
        ("data/shards/target/index.parquet", "shards@target"),
        ("models/pretrain", "pretrain"),
    ],
)
def test_names_and_paths_lead_to_their_stage(name, stage, records, monkeypatch):
    monkeypatch.setattr(dvc_lock, "current", lambda: records)
    assert subject.find(name).stage == stage


def test_an_unknown_name_is_told_what_is_wanted(records, monkeypatch):
    monkeypatch.setattr(dvc_lock, "current", lambda: records)
    with pytest.raises(ValueError, match=r"found no 'full-9' in dvc.lock; wanted a replica .*: full-0, full-1$"):
        subject.find("full-9")


def test_a_run_leads_to_its_stage_and_back(model):
    run_id = lineage.trace(model).steps[-2].run_id
    found = subject.find(run_id)
    assert (found.stage, found.revision) == ("evaluate@full-0", None)


def test_the_note_of_another_run_is_not_shown_as_this_ones(small, monkeypatch):
    monkeypatch.chdir(small)
    note = layout.run("finetune", "full", 0)
    run_id = json.loads(note.read_text())["run_id"]
    replace(note, run_id, "f" * 32)
    for committed in (False, True):
        if committed:
            small_project.commit(small, "A note of another run")
        traced = lineage.trace(subject.find(REPLICA))
        assert {step.stage: step.run_id for step in traced.steps}["finetune@full-0"] is None
        assert "f" * 12 not in lineage.text(traced)


def test_a_run_that_dvc_lock_no_longer_knows_is_found_in_git_or_by_what_it_read(small, monkeypatch):
    monkeypatch.chdir(small)
    note = layout.run("finetune", "full", 0)
    before = json.loads(note.read_text())["run_id"]
    replace(note, before, "f" * 32)
    held = small_project.run(small, "git", "rev-parse", "HEAD").strip()
    small_project.commit(small, "Another run")
    found = subject.find(before)
    assert (found.stage, found.revision) == ("evaluate@full-0", held)
    assert "no longer in dvc.lock" in found.notes[0]

    small_project.run(small, "git", "reset", "--quiet", "--soft", "HEAD~2")  # as if it had never been committed
    small_project.commit(small, "Only the present")
    found = subject.find(before)
    assert found.stage.startswith("shards@")
    assert "shown is what it read" in found.notes[0]
    with pytest.raises(ValueError, match=r"found no run 0{32}, neither in"):
        subject.find("0" * 32)


def test_a_champion_is_found_after_its_replica_was_trained_again(small, monkeypatch):
    monkeypatch.chdir(small)
    records = dvc_lock.current()
    md5 = records["finetune@full-0"].outs["models/finetune/full-0"]
    held = small_project.run(small, "git", "rev-parse", "HEAD").strip()
    champion = {"replica": REPLICA, "dvc_hash": md5, "run_id": None, "git_revision": held, "bundle_hash": "0.dir"}
    check = {"name": "better", "passed": True, "found": 1, "wanted": 0, "text": "the first"}
    line = {
        "number": 1, "time": "2026-11-23T10:00:00Z", "action": "promote", "model": "small", "reason": None,
        "version": None, "challenger": {key: champion[key] for key in champion if key != "bundle_hash"},
        "champion_before": None, "champion_after": champion,
        "data": {"shards": "s", "manifest": "m", "split": "val", "view": "center", "num_images": 60,
                 "keys_sha256": "k"},
        "verdict": {"promoted": True, "checks": [check], "evidence": {"limits": {}}},
    }  # fmt: skip
    layout.PROMOTIONS.write_text(json.dumps(line) + "\n")
    replace(layout.DVC_LOCK, md5, "0" * 32 + ".dir")
    small_project.commit(small, "Trained again")

    found = subject.find("champion")
    assert (found.stage, found.revision) == ("evaluate@full-0", held)
    assert subject.find("models/champions/small").stage == found.stage
    text = lineage.text(lineage.trace(found))
    assert "line 1, 2026-11-23T10:00:00Z, promote: full-0 against nobody; champion of small: full-0" in text
    decision = verify.verify(found)[-1]
    assert (decision.stage, decision.state) == ("decision (small)", "absent")


# ------------------------------------------------------------------------------------------------------------- command


def test_the_command_ends_with_1_on_a_difference_alone(project, reproduced, monkeypatch, capsys):
    from rootstock import cli

    cli.main(["lineage", REPLICA, "--verify"])
    assert capsys.readouterr().out.rstrip().endswith("identical: everything that is here is as recorded")
    flip(layout.stats("target"), 5)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(["lineage", REPLICA, "--verify", "--json"])
    finally:
        restore(layout.stats("target"), project, reproduced)
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["differs_first_at"] == "stats@target"
