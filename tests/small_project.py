"""A whole project as small as it gets: a clone of this checkout, in git, on its own few images, reproduced by DVC.

`build` makes it (about a minute on two cores), once a session; each test that asks gets a copy.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"fern": (40, 160, 60), "moss": (90, 130, 40), "rust": (180, 80, 30)}
NUM_IMAGES = {"train": 12, "val": 20, "test": 10}  # of each class
SIDE = 24  # pixels
CHOICE = "small"
CONFIGURATION = """\
# @package _global_
defaults: [override /arch: resnet10-compact]
fetch:
  source: &images {collection: folder, path: images, val_fraction: 0.15, test_fraction: 0.15}
  target: *images
manifest:
  source: &manifest
    split_seed: 0
    val_fraction: null
    gate_fraction: 0.5
    max_reject_fraction: 0.01
    drop_duplicates: identical
    near_radius: 11
    decode: {backend: simplejpeg, max_pixels: 1000000}
  target: *manifest
stats:
  source: &stats {short_side: 24, crop_size: 24}
  target: *stats
shards:
  source: &shards {short_side: null, quality: 90, max_shard_bytes: 100000, seed: 0}
  target: *shards
pretrain:
  arch: {width: 8}
  image_size: 16
  resize_size: 24
  training: &quick {epochs: 2, batch_size: 12, microbatch_size: 12}
finetune:
  full: {training: *quick}
  scratch: {training: *quick}
replicas: {strategies: [full], seeds: [0, 1]}
promote: {model: small}
"""


def draw(folder: Path, *, num_images: dict[str, int] = NUM_IMAGES, seed: int = 0, shuffled: bool = False) -> None:
    """Write `{split}/{class}/*.png`: a class is a colour under noise; `shuffled` gives train images any class's."""
    rng = np.random.default_rng(seed)
    colours = list(CLASSES.values())
    for split, number in num_images.items():
        for name, colour in CLASSES.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                shown = colours[rng.integers(len(colours))] if shuffled and split == "train" else colour
                pixels = np.clip(np.array(shown) + rng.normal(0, 45, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{seed}-{index:03d}.png")


def environment(**changes: str) -> dict[str, str]:
    """The environment of commands in a small project: this interpreter first, nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "ROOTSTOCK_", "MLFLOW_"))}
    kept.pop("PYTHONPATH", None)
    fixed = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "ROOTSTOCK_DEVICE": "cpu",
        "ROOTSTOCK_THREADS": "1",
        "ROOTSTOCK_WORKERS": "2",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }  # fmt: skip
    return kept | fixed | changes


def run(project: Path, *command: str, **changes: str) -> str:
    """Run a command in a project; return what it printed, both streams. A failure shows it."""
    done = subprocess.run(
        command, cwd=project, env=environment(**changes), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def rootstock(project: Path, *arguments: str, **changes: str) -> str:
    """Run `rootstock …` of the project's own code."""
    # its own library, not the one that the environment was made for
    path = {"PYTHONPATH": str(project / "src")}
    return run(project, sys.executable, "-m", "rootstock.cli", *arguments, **path | changes)


def clone(repository: Path, folder: Path) -> Path:
    """Copy what git tracks or would track, and commit it in a repository of its own, configured and not yet run."""
    names = subprocess.run(
        ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    made_elsewhere = ("reports/", "models/", "dvc.lock")  # a reproduction here must not show there
    for name in filter(None, names):
        if not name.startswith(made_elsewhere) and (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    (folder / "conf/data" / f"{CHOICE}.yaml").write_text(CONFIGURATION)
    with open(folder / ".gitignore", "a") as file:
        file.write("/images/\n")
    run(folder, "git", "init", "-q", "-b", "main")
    rootstock(folder, "configure", f"data={CHOICE}")
    commit(folder, "Begin")
    return folder


def commit(project: Path, message: str) -> str:
    """Commit everything; return the revision."""
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-q", "--allow-empty", "-m", message)
    return run(project, "git", "rev-parse", "HEAD").strip()


def build(repository: Path, folder: Path) -> Path:
    """Make the project and reproduce it: dvc.lock, outputs, cache and MLflow store are there, everything committed."""
    clone(repository, folder)
    draw(folder / "images")
    run(folder, "dvc", "repro")
    commit(folder, "Reproduce")
    return folder


def copy(project: Path, folder: Path) -> Path:
    """Copy a project with its cache and store; the store's absolute paths are told of the move."""
    shutil.copytree(project, folder, symlinks=True)
    with sqlite3.connect(folder / "mlflow.db") as store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            store.execute(moved, (project.as_uri(), folder.as_uri()))
    store.close()
    return folder
