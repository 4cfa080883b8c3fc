"""fetch, as a person runs it: what it leaves out is said."""

import os
import shutil
import subprocess
import sys

import pytest

from rootstock.config.load import read_yaml, write_yaml
from rootstock.schema import source


@pytest.fixture
def project(tmp_path, repository):
    shutil.copy(repository / "requirements.lock", tmp_path)
    params = read_yaml(repository / "params.yaml")
    params["fetch"]["target"] = {
        "collection": "folder", "path": "images", "val_fraction": 0.2, "test_fraction": 0.2,
    }  # fmt: skip
    write_yaml(tmp_path / "params.yaml", params, header="small")
    for name in ("rose", "aster"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "images" / name / f"{number}.jpg").write_bytes(b"picture")
    return tmp_path


def fetch(project, repository) -> str:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "ROOTSTOCK_", "MLFLOW_"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.fetch", "--dataset", "target"],
        cwd=project, env=ours | {"PYTHONPATH": str(repository)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(source.read(project / "data/raw/target/source.json")["files"]) == 6
    return ended.stdout


def test_ignored_files_are_counted_by_suffix_in_one_line(project, repository):
    assert fetch(project, repository) == ""
    for name in ("rose/notes.txt", "aster/more.txt", "labels.csv", "rose/.DS_Store"):
        (project / "images" / name).write_text("1")
    assert fetch(project, repository) == (
        "target: ignored files that are no images: {'.csv': 1, '.txt': 2, 'hidden': 1}\n"
    )
