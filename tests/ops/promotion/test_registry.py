"""The registry mirrors the ledger: one version a champion, with evidence, loadable anywhere, nothing unpickled."""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.evaluation import serving
from rootstock.models import bundle
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.ops.promotion import registered_package, registry
from rootstock.ops.store import Store, StoreError

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow's own
MODEL = "flowers"
SERVING = {"decode": {"backend": "simplejpeg", "max_pixels": 10_000}, "view": "ten"}
CHAMPION = {
    "replica": "full-0", "dvc_hash": "a.dir", "run_id": "0" * 32, "git_revision": "1" * 40, "bundle_hash": "c.dir",
}  # fmt: skip
CHECK = {"name": "better", "passed": True, "found": 0.01, "wanted": 0.05, "text": "better: +20 points"}
LINE = {
    "number": 3,
    "time": "2026-01-01T00:00:00Z",
    "data": {"num_images": 60, "split": "val"},
    "verdict": {"promoted": True, "checks": [CHECK], "evidence": {"num_images": 60}},
}
LOADS = """
import json, sys
import mlflow, pandas
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/flowers@champion")
import rootstock
images = [Path(name).read_bytes() for name in sys.argv[2:]]
found = model.predict(pandas.DataFrame({"image": images}))
print(json.dumps({"from": rootstock.__file__, "rows": found.to_dict("records")}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A champion's bundle."""
    from rootstock.config.model import ResNetArch

    arch = ResNetArch(name="resnet10", stem="compact", width=8, zero_init_last_bn=False)
    torch.manual_seed(0)
    network = build(arch, image_size=16, num_classes=3, seed=0)
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.2)
    classifier = Classifier(Normalise("standardise", mean=mean, std=std), network)
    facts = bundle.describe(
        classifier,
        class_names=["fern", "moss", "rust"],
        image_size=16,
        resize_size=24,
        trained_on={"collection": "garden", "splits": ["train"], "num_images": 36},
    )
    folder = tmp_path_factory.mktemp("bundle") / MODEL
    bundle.save(folder, classifier, facts)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with an empty store; each test has a model's name of its own."""
    environment = pytest.MonkeyPatch()
    environment.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = tmp_path_factory.mktemp("project")
    Store(project)
    yield project
    environment.undo()


@pytest.fixture
def quick(monkeypatch) -> None:
    """No real packing, which takes seconds."""

    def save(path, *, folder, serving):
        path.mkdir()
        (path / "MLmodel").write_text("flavors: {}\n")

    monkeypatch.setattr(registered_package, "save", save)


def mirror(project, folder, *, model=MODEL, line=LINE, **changes) -> registry.Mirrored:
    return registry.Registry(project).mirror(
        model, {**CHAMPION, **changes}, folder=folder, serving=SERVING, line=line
    )  # fmt: skip


def image(kind: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def test_a_registered_champion_predicts_elsewhere_as_it_does_here(project, folder, tmp_path):
    assert mirror(project, folder) == ("1", True, None)
    images = [image(kind, seed) for seed, kind in enumerate(["JPEG", "PNG", "WEBP"])]
    paths = [tmp_path / f"{number}.image" for number in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    # isolated: not this checkout's library but the one that travels with the model
    hidden = {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "ROOTSTOCK_DEVICE": "cpu",
        "MLFLOW_DISABLE_TELEMETRY": "1",
    }
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'rootstock' not in repr(f).lower()]\n"
        f"sys.path[:] = [p for p in sys.path if not p.startswith({str(Path(registry.__file__).parents[3])!r})]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", LOADS, f"sqlite:///{project / 'mlflow.db'}", *map(str, paths)],
        env={**os.environ, **hidden, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    classifier, facts = bundle.load(folder)
    wanted = serving.predict(classifier, images, facts=facts, serving=serving.Serving(**SERVING), device="cpu")
    for row, values in zip(found["rows"], wanted, strict=True):
        assert row["class"] == facts["class_names"][values.argmax()]
        assert list(row["probabilities"].values()) == pytest.approx(values.tolist(), abs=1e-5)
        assert list(row["probabilities"]) == facts["class_names"]
        assert row["probability"] == max(row["probabilities"].values())
    assert "/code/rootstock/" in found["from"], "the library that travels with the model was not used"


def test_a_version_is_found_again_and_carries_its_evidence(project, folder, quick):
    assert mirror(project, folder, model="once") == ("1", True, None)
    assert mirror(project, folder, model="once") == ("1", False, "1")
    assert mirror(project, folder, model="once", bundle_hash="d.dir") == ("2", True, "1")
    assert mirror(project, folder, model="once") == ("1", False, "2"), "a rollback registers nothing"
    version = Store(project).client.get_model_version("once", "1")
    tags = {name.removeprefix("rootstock."): text for name, text in version.tags.items()}
    assert json.loads(tags.pop("decision")) == LINE["verdict"]
    assert tags == {
        "bundle_hash": "c.dir", "dvc_hash": "a.dir", "replica": "full-0", "run_id": "0" * 32, "git_revision": "1" * 40,
        "collection": "garden", "trained_on": "train", "ledger_line": "3",
    }  # fmt: skip
    assert version.description == (
        "full-0, promoted 2026-01-01T00:00:00Z on 60 images of val (line 3 of reports/promotions.jsonl):\n\n"
        "- better: better: +20 points"
    )
    assert not version.run_id, "a run that this store does not know"


def test_the_source_run_is_linked(project, folder, quick):
    store = Store(project)
    run_id = store.client.create_run(store.experiment).info.run_id
    mirror(project, folder, model="linked", run_id=run_id)
    assert store.client.get_model_version("linked", "1").run_id == run_id
    assert store.client.get_run(run_id).info.status == "RUNNING", "linking a run does not touch it"
    store.client.set_terminated(run_id)


def test_an_alias_without_a_champion_is_taken_away(project, folder, quick):
    mirror(project, folder, model="gone")
    opened = registry.Registry(project)
    assert opened.withdraw("gone") == "1"
    assert opened.withdraw("gone") is None
    assert opened.withdraw("never") is None


def test_an_interrupted_upload_is_removed_and_made_anew(project, folder, quick, monkeypatch):
    def full(path, *, folder, serving):
        raise OSError(28, "No space left on device")

    whole = registered_package.save
    monkeypatch.setattr(registered_package, "save", full)
    with pytest.raises(StoreError, match="No space left on device"):
        mirror(project, folder, model="torn")
    monkeypatch.setattr(registered_package, "save", whole)
    assert mirror(project, folder, model="torn") == ("1", True, None)
    store = Store(project)
    left = store.client.search_logged_models([store.experiment], filter_string="name = 'torn'")
    assert [str(logged.status) for logged in left] == ["READY"]


def test_a_decision_too_long_for_a_tag_points_to_the_ledger(project, folder, quick):
    line = copy.deepcopy(LINE)
    line["verdict"]["evidence"]["note"] = "x" * registry.MAX_TAG_CHARACTERS
    mirror(project, folder, model="long", line=line)
    tags = Store(project).client.get_model_version("long", "1").tags
    assert json.loads(tags["rootstock.decision"]) == {"promoted": True, "see": "reports/promotions.jsonl"}


def test_a_store_that_is_away_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"127.0.0.1"):
        registry.Registry(tmp_path)


def test_requirements_are_pinned_to_what_runs_here():
    pinned = registered_package.requirements()
    assert f"numpy=={np.__version__}" in pinned
    assert all(one.count("==") == 1 and "+" not in one for one in pinned)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"GIF89a", "neither JPEG, PNG nor WebP"), (image("PNG", 0)[:200], "broken PNG")],
)
def test_a_broken_image_is_named(folder, data, reason):
    classifier, facts = bundle.load(folder)
    with pytest.raises(ValueError, match=f"^image 1: {reason}"):
        serving.predict(
            classifier, [image("JPEG", 0), data], facts=facts, serving=serving.Serving(**SERVING), device="cpu"
        )


def test_the_quickest_round_counts(folder, monkeypatch):
    seconds = iter([0.3, 0.1, 0.2])
    clock = [0.0]

    def slow(*args, **kwargs):
        clock[0] += calls.pop(0)

    calls = [0.0] * serving.NUM_WARM_UP + [second for second in seconds for _ in range(5)]
    monkeypatch.setattr(serving, "predict", slow)
    monkeypatch.setattr(serving.time, "perf_counter", lambda: clock[0])
    options = {"facts": {}, "serving": serving.Serving(**SERVING), "device": "cpu"}
    assert serving.latency_ms(None, [b""] * 5, enough_ms=50.0, **options) == pytest.approx(100.0)
    assert calls == []
    calls[:] = [0.0] * serving.NUM_WARM_UP + [0.3] * 5
    assert serving.latency_ms(None, [b""] * 5, enough_ms=400.0, **options) == pytest.approx(300.0), "quick enough: once"
