"""conf/ is composed as DVC composes it, and judged before anything runs."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from dvc.utils.serialize import load_yaml

from rootstock.config.compose import compose, expand
from rootstock.config.load import read_yaml, write_yaml
from rootstock.config.section import ParamsError


@pytest.fixture
def conf(repository, tmp_path) -> Path:
    return Path(shutil.copytree(repository / "conf", tmp_path / "conf"))


def message(conf: Path, *overrides: str) -> str:
    with pytest.raises(ParamsError) as caught:
        compose(conf, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data=mini"],
        ["data=imagenet-flowers"],
        ["data=folder", "fetch.target.path=my/images"],
        ["data=imagenet-folder", "fetch.target.path=my/images"],
        ["pretrain.training.epochs=20", "pretrain.training.optim.lr=1e-3", "replicas.seeds=[4,5]"],
    ],
)
def test_we_compose_what_dvc_composes(conf, tmp_path, overrides):
    ours = compose(conf, overrides)
    compose_and_dump(tmp_path / "theirs.yaml", str(conf), None, "config", str(tmp_path), overrides)
    assert load_yaml(tmp_path / "theirs.yaml") == ours
    write_yaml(tmp_path / "ours.yaml", ours, header="generated")
    assert read_yaml(tmp_path / "ours.yaml") == load_yaml(tmp_path / "ours.yaml") == ours


def test_every_data_choice_is_valid(conf):
    for path in sorted((conf / "data").glob("*.yaml")):
        extra = ["fetch.target.path=x"] if path.stem.endswith("folder") else []
        assert compose(conf, [f"data={path.stem}", *extra])["fetch"]["target"]


@pytest.mark.parametrize(("base", "source"), [("folder", "demo"), ("imagenet-folder", "ilsvrc2012")])
def test_ones_own_images_in_three_lines(conf, base, source):
    (conf / "data" / "mine.yaml").write_text(
        f"# @package _global_\ndefaults: [{base}]\nfetch: {{target: {{path: ~/cats}}}}\n"
    )
    composed = compose(conf, ["data=mine"])
    assert composed["fetch"]["source"]["collection"] == source
    target = {section: composed[section]["target"] for section in ("fetch", "manifest", "shards")}
    assert target["fetch"] == {
        "collection": "folder", "path": "~/cats", "val_fraction": 0.15, "test_fraction": 0.15,
    }  # fmt: skip
    assert target["manifest"]["val_fraction"] is None
    assert target["manifest"]["max_reject_fraction"] == 0.05
    assert (target["shards"]["short_side"], target["shards"]["max_shard_bytes"]) == (256, 256_000_000)


SPLITS = {
    "demo flowers": ("demo", "target", "0.05", "0.05; wanted null for flowers102, which has a val split without it"),
    "flowers": ("mini", "target", "0.0", "0.0; wanted null for flowers102, which has a val split without it"),
    "folder": ("mine", "target", "0.1", "0.1; wanted null for folder, which has a val split without it"),
    "demo shapes": (
        "demo", "source", "null", "null; wanted a fraction above 0 for ilsvrc2012, whose val is a slice of train",
    ),
    "imagenet": ("mini", "source", "0", "0.0; wanted a fraction above 0 for ilsvrc2012, whose val is a slice of train"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "dataset", "value", "wanted"), SPLITS.values(), ids=SPLITS)
def test_a_val_fraction_is_given_where_it_splits_and_nowhere_else(conf, data, dataset, value, wanted):
    (conf / "data" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [folder]\nfetch: {target: {path: ~/cats}}\n"
    )
    key = f"manifest.{dataset}.val_fraction"
    assert message(conf, f"data={data}", f"{key}={value}") == f"params: {key}: {wanted}"


def test_golden_messages(conf):
    assert message(conf, "data=folder") == (
        f"{conf}: fetch.target.path: missing; give it in conf/data/mine.yaml or as fetch.target.path=…"
    )
    assert message(conf, "pretrain.training.epoch=20") == (
        "params.pretrain.training.epoch: unknown key (value 20); did you mean epochs?"
    )
    assert message(conf, "pretrain.training.epochs=ten") == (
        "params.pretrain.training.epochs: 'ten' is not allowed: input should be a valid integer"
    )
    assert message(conf, "pretrain.training.epochs=-1") == (
        "params.pretrain.training.epochs: -1 is not allowed: input should be greater than or equal to 1"
    )
    assert message(conf, "~report") == "params.report: missing; add it"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data=cats", ["Could not find 'data/cats'", "demo", "folder", "imagenet-flowers"]),
        ("recipe=huge", ["Could not find 'recipe/huge'", "tiny"]),
        ("fetch.target.collection=cifar10", ["params.fetch.target", "'cifar10'", "'flowers102'"]),
        ("nothing.at.all=1", ["params.nothing: unknown key", "allowed: evaluate, fetch"]),
        ("pretrain.seed=${nowhere}", ["nowhere"]),
        ("pretrain", ["pretrain", "missing EQUAL"]),
        ("pretrain.training.optim.lr=on", ["params.pretrain.training.optim.lr: ", "valid number"]),
    ],
)
def test_what_is_wrong_and_what_is_allowed_is_said(conf, override, parts):
    text = message(conf, override)
    for part in parts:
        assert part in text


def test_a_broken_file_is_an_error_of_configuration(conf):
    (conf / "recipe" / "tiny.yaml").write_text("pretrain: [")
    assert str(conf) in message(conf)


def test_composing_twice_in_a_process_is_possible(conf):
    assert compose(conf, ["data=mini"]) != compose(conf, [])
    assert compose(conf, []) == compose(conf, [])


def test_a_sweep_is_expanded_as_dvc_does():
    given = ["data=demo", "pretrain.seed=1,2", "finetune.full.training.epochs=range(3,6,2)"]
    assert expand(given) == [
        ["data=demo", f"pretrain.seed={seed}", f"finetune.full.training.epochs={epochs}"]
        for seed in (1, 2)
        for epochs in (3, 5)
    ]
    assert expand([]) == [[]]
    assert expand(["replicas.seeds=[0,1]"]) == [["replicas.seeds=[0,1]"]], "a list is no sweep"
