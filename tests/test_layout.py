"""Where files live; that dvc.yaml agrees is tests/pipeline/test_dvc_yaml.py's."""

import os
from pathlib import Path

from rootstock import layout


def test_outputs_are_relative_and_distinct():
    paths = [
        layout.PRETRAIN,
        layout.SELECTION,
        layout.REPORT,
        layout.finetune("full", 1),
        layout.predictions("full", 1),
        layout.metrics("full", 1),
        layout.history("finetune", "full", 1),
        layout.run("finetune", "full", 1),
    ]
    for dataset in layout.DATASETS:
        paths += [
            layout.source(dataset), layout.manifest(dataset), layout.rejects(dataset), layout.duplicates(dataset),
            layout.stats(dataset), layout.stats_arrays(dataset), layout.shards(dataset),
        ]  # fmt: skip
    assert not any(path.is_absolute() for path in paths)
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert not any(path in other.parents for other in paths), f"{path} holds another output"


def test_an_experiments_copy_shares_state_and_archives_with_the_project(monkeypatch, tmp_path):
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("ROOTSTOCK_ARCHIVES", raising=False)
    assert layout.state() == tmp_path / "copy" / ".rootstock"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert layout.project() == tmp_path
    assert layout.state() == tmp_path / ".rootstock"
    assert layout.own_archives("demo-flowers102") == tmp_path / "data/archives/demo-flowers102"
    assert layout.archives() == [tmp_path / "data/archives"]


def test_given_folders_of_archives_come_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("ROOTSTOCK_ARCHIVES", os.pathsep.join(["/a", "", "~/b"]))
    assert layout.archives() == [Path("/a"), Path.home() / "b", tmp_path / "data/archives"]
