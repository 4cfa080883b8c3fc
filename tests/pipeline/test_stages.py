"""The stages as a person runs them: processes of their own, in a project folder of their own, without DVC."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

from rootstock import layout
from rootstock.config.load import read_yaml, write_yaml
from rootstock.evaluation import predictions
from rootstock.schema import history, metrics, selection
from rootstock.schema.contract import read_table
from rootstock.schema.manifest import MANIFEST, REJECTS

CLASSES = {"moss": (40, 160, 60), "rust": (180, 80, 30)}


class Project:
    """A folder with params.yaml, in which stages run."""

    def __init__(self, folder: Path, repository: Path):
        self.folder, self.repository = folder, repository
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / "requirements.lock", folder)

    def environment(self, **changes: str) -> dict[str, str]:
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "ROOTSTOCK_", "MLFLOW_"))
        }
        fixed = {
            "PYTHONPATH": str(self.repository),
            "ROOTSTOCK_DEVICE": "cpu",
            "ROOTSTOCK_THREADS": "1",
            "ROOTSTOCK_WORKERS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
        }
        return ours | fixed | changes

    def start(self, stage: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", f"pipeline.{stage}", *arguments],
            cwd=self.folder, env=self.environment(**environment), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, stage: str, *arguments: str, **environment: str) -> str:
        return finished(self.start(stage, *arguments, **environment))

    def fails(self, stage: str, *arguments: str, **environment: str) -> str:
        process = self.start(stage, *arguments, **environment)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors[-2000:]
        assert "Traceback" not in errors
        return errors

    def both(self, stage: str) -> None:
        """Source and target at once: most of a stage's time here is its imports."""
        running = [self.start(stage, "--dataset", dataset) for dataset in layout.DATASETS]
        for process in running:
            finished(process)

    def bytes_of(self, folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / folder).iterdir())}


def finished(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    return output


def small_params(repository: Path, images: Path) -> dict:
    """The committed parameters, with folder collections and trainings of a second."""
    params = read_yaml(repository / "params.yaml")
    collection = {"collection": "folder", "path": str(images), "val_fraction": 0.25, "test_fraction": 0.25}
    params["fetch"] = dict.fromkeys(layout.DATASETS, collection)
    for dataset in layout.DATASETS:
        params["manifest"][dataset]["max_reject_fraction"] = 0.1
        params["stats"][dataset] = {"short_side": 16, "crop_size": 16}
        params["shards"][dataset]["short_side"] = None
    training = {
        "epochs": 2, "batch_size": 8, "microbatch_size": 4, "precision": "fp32", "label_smoothing": 0.0,
        "optim": {
            "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "decay_norm_and_bias": False,
            "schedule": {"kind": "cosine", "warmup_epochs": 0.5, "final_fraction": 0.0},
        },
        "augment": {
            "scale": [0.5, 1.0], "ratio": [0.75, 1.3333], "flip": 0.5, "antialias": False, "colour_pca_std": 0.1
        },
    }  # fmt: skip
    params["pretrain"] |= {
        "arch": {"name": "resnet18", "stem": "compact", "width": 8, "zero_init_last_bn": True},
        "image_size": 16,
        "resize_size": 16,
        "training": training,
    }
    for section in params["finetune"].values():
        section["training"] = training | {"epochs": 1, "optim": training["optim"]}
    params["replicas"] = {"strategies": ["full"], "seeds": [0]}
    params["evaluate"] = {"views": ["center", "ten"], "batch_size": 16}
    params["select"] = {"view": "center", "metric": "top1"}
    return params


def draw(folder: Path, *, num_images: int) -> None:
    rng = np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(num_images):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (32, 32 + number, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.jpg")


@pytest.fixture(scope="module")
def project(tmp_path_factory, repository) -> Project:
    """All stages, once, for the tests that look at what came out."""
    folder = tmp_path_factory.mktemp("project")
    draw(folder / "images", num_images=12)
    (folder / "images" / "rust" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    made = Project(folder, repository)
    write_yaml(folder / "params.yaml", small_params(repository, folder / "images"), header="small")
    for stage in ("fetch", "manifest", "stats", "shards"):
        made.both(stage)
    made.run("pretrain")
    replica = ("--strategy", "full", "--seed", "0")
    made.run("finetune", *replica)
    made.run("evaluate", *replica)
    made.run("select")
    made.run("report")
    return made


def test_every_stage_leaves_its_outputs(project):
    outputs = [layout.PRETRAIN / "weights.safetensors", layout.PRETRAIN / "model.json", layout.SELECTION, layout.REPORT]
    for dataset in layout.DATASETS:
        outputs += [layout.source(dataset), layout.manifest(dataset), layout.rejects(dataset), layout.stats(dataset)]
        outputs += [layout.stats_arrays(dataset), layout.shards(dataset) / "index.parquet"]
    outputs += [
        layout.finetune("full", 0) / "weights.safetensors",
        layout.predictions("full", 0),
        layout.metrics("full", 0),
    ]
    outputs += [layout.history("pretrain"), layout.history("finetune", "full", 0)]
    outputs += [layout.run("pretrain"), layout.run("finetune", "full", 0), layout.run("evaluate", "full", 0)]
    assert [str(path) for path in outputs if not (project.folder / path).is_file()] == []


def test_the_contents_agree_from_stage_to_stage(project):
    manifest = read_table(project.folder / layout.manifest("target"), MANIFEST)
    assert len(manifest) == 24
    assert len(manifest.groupby(["split", "label"])) == 6, "each class in each split"
    frame, facts = predictions.read(project.folder / layout.predictions("full", 0))
    assert facts["class_names"] == sorted(CLASSES)
    for view in ("center", "ten"):
        found = frame[frame["view"] == view].groupby("split")["key"].apply(set).to_dict()
        wanted = manifest[manifest["split"] != "train"].groupby("split")["key"].apply(set).to_dict()
        assert found == wanted
    measured = metrics.read(project.folder / layout.metrics("full", 0))
    chosen = selection.read(project.folder / layout.SELECTION)
    assert chosen["candidates"][0]["value"] == measured["val"]["center"]["top1"]["value"]
    assert len(history.read(project.folder / layout.history("pretrain"))) == 2


def test_a_bad_image_is_listed_and_shown(project):
    refused = read_table(project.folder / layout.rejects("target"), REJECTS)
    assert refused["key"].tolist() == ["rust/broken"]
    page = (project.folder / layout.REPORT).read_text()
    assert "rust/broken" in page
    assert "moss" in page


def test_files_that_others_depend_on_hold_no_time_and_no_path(project):
    stable = [
        layout.source("target"),
        layout.stats("target"),
        layout.PRETRAIN / "model.json",
        layout.metrics("full", 0),
    ]
    for path in [*stable, layout.SELECTION, layout.history("pretrain")]:
        text = (project.folder / path).read_text()
        assert str(project.folder) not in text, path
        assert time.strftime("%Y-") not in text, path


def test_no_state_stays_behind(project):
    training = project.folder / ".rootstock" / "training"
    assert [path.name for path in training.iterdir() if path.is_dir()] == []


def copied(project: Project, folder: Path) -> Project:
    """The same data in another project folder, not yet pretrained."""
    made = Project(folder, project.repository)
    shutil.copy(project.folder / "params.yaml", folder)
    shutil.copytree(project.folder / "data", folder / "data")
    return made


def test_two_processes_train_what_one_does(project, tmp_path):
    other = copied(project, tmp_path / "two")
    other.run("pretrain", ROOTSTOCK_PROCESSES="2")
    one = load_file(project.folder / layout.PRETRAIN / "weights.safetensors")
    two = load_file(other.folder / layout.PRETRAIN / "weights.safetensors")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(two[name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)
    assert json.loads((other.folder / layout.run("pretrain")).read_text())["hardware"]["world_size"] == 2


def test_a_killed_pretraining_continues_to_the_same_bytes(project, tmp_path):
    other = copied(project, tmp_path / "killed")
    process = other.start("pretrain", ROOTSTOCK_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 60
    while not list(other.folder.glob(".rootstock/training/*/checkpoints/step-*.json")):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (other.folder / layout.PRETRAIN).exists()
    process = other.start("pretrain")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2000:]
    assert "continues at step " in errors
    assert other.bytes_of(layout.PRETRAIN) == project.bytes_of(layout.PRETRAIN)
    curve = layout.history("pretrain")
    assert (other.folder / curve).read_bytes() == (project.folder / curve).read_bytes()
    assert json.loads((other.folder / layout.run("pretrain")).read_text())["attempts"] == 2


# ------------------------------------------------------------------------------------------------- a person's mistakes


def test_mistakes_are_said_without_a_traceback(project, tmp_path):
    other = Project(tmp_path / "mistakes", project.repository)
    params = small_params(project.repository, tmp_path / "absent")
    assert "params.yaml is missing" in other.fails("fetch", "--dataset", "target")
    write_yaml(other.folder / "params.yaml", params, header="")
    assert "wanted a folder of images" in other.fails("fetch", "--dataset", "target")
    params["pretrain"]["training"]["epochs"] = "many"
    write_yaml(other.folder / "params.yaml", params, header="")
    assert "params.yaml: pretrain.training.epochs: 'many' is not allowed" in other.fails("pretrain")


def test_changed_images_are_noticed_before_they_are_used(project, tmp_path):
    shutil.copytree(project.folder / "images", tmp_path / "images")
    other = Project(tmp_path / "changed", project.repository)
    write_yaml(other.folder / "params.yaml", small_params(project.repository, tmp_path / "images"), header="")
    other.run("fetch", "--dataset", "target")
    with open(tmp_path / "images" / "moss" / "03.jpg", "ab") as file:
        file.write(b"x")
    assert "moss/03.jpg" in other.fails("manifest", "--dataset", "target")
    assert not (other.folder / layout.manifest("target")).exists()


def test_ctrl_c_ends_the_manifest_at_once_and_leaves_nothing(project, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(500):
            os.link(tmp_path / "noise.jpg", tmp_path / "images" / name / f"{number}.jpg")
    other = Project(tmp_path / "stopped", project.repository)
    write_yaml(other.folder / "params.yaml", small_params(project.repository, tmp_path / "images"), header="")
    other.run("fetch", "--dataset", "target")
    process = other.start("manifest", "--dataset", "target", ROOTSTOCK_WORKERS="2")
    folder = (other.folder / layout.manifest("target")).parent
    deadline = time.monotonic() + 60
    while not (folder.is_dir() and len(psutil.Process(process.pid).children(recursive=True)) >= 3):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    children = psutil.Process(process.pid).children(recursive=True)
    started = time.perf_counter()
    os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal sends it
    _, errors = process.communicate(timeout=60)
    assert time.perf_counter() - started < 15.0  # 0.2 s on an idle machine
    assert process.returncode == 130, errors[-2000:]
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert list(folder.iterdir()) == []
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == [], "a worker outlived its stage"
