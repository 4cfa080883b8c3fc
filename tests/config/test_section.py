"""Errors of configuration name key, value and what is allowed; nothing is converted, nothing is filled in."""

import copy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rootstock.config.load import read_yaml
from rootstock.config.params import Params
from rootstock.config.section import ParamsError, parse

COMMITTED = read_yaml(Path(__file__).resolve().parents[2] / "params.yaml")


def settled(value: dict) -> dict:
    """The committed parameters with what the messages below name; the rest may be tuned."""
    value = copy.deepcopy(value)
    value["pretrain"] |= {"image_size": 48, "resize_size": 48}
    value["pretrain"]["training"] |= {"epochs": 12, "batch_size": 64, "microbatch_size": 64}
    schedule = {"kind": "cosine", "warmup_epochs": 1.0, "final_fraction": 0.0}
    value["pretrain"]["training"]["optim"]["schedule"] = schedule
    value["finetune"] = {name: value["finetune"][name] for name in ("linear", "full", "scratch")}
    value["evaluate"]["views"], value["select"]["view"] = ["center", "ten"], "center"
    return value


WHOLE = settled(COMMITTED)


def changed(path: str, value: object) -> dict:
    result = copy.deepcopy(WHOLE)
    inner = result
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return result


def without(path: str) -> dict:
    result = copy.deepcopy(WHOLE)
    inner = result
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[name]
    del inner[last]
    return result


def message(value: dict) -> str:
    with pytest.raises(ParamsError) as caught:
        parse(Params, value, where="p")
    return str(caught.value)


def test_the_committed_parameters_are_read_unchanged():
    assert parse(Params, COMMITTED, where="p").model_dump() == COMMITTED


EPOCHS = "pretrain.training.epochs"
GOLDEN = {
    "a wrong type": (EPOCHS, "ten", f"p.{EPOCHS}: 'ten' is not allowed: input should be a valid integer"),
    "a float for an integer": (EPOCHS, 12.0, f"p.{EPOCHS}: 12.0 is not allowed: input should be a valid integer"),
    "true for an integer": (EPOCHS, True, f"p.{EPOCHS}: True is not allowed: input should be a valid integer"),
    "out of range": (EPOCHS, 0, f"p.{EPOCHS}: 0 is not allowed: input should be greater than or equal to 1"),
    "a misspelt key": (
        "pretrain.training.epoch",
        5,
        "p.pretrain.training.epoch: unknown key (value 5); did you mean epochs?",
    ),
    "an unknown key": (
        "stats.source.xyz",
        [],
        "p.stats.source.xyz: unknown key (value []); allowed: crop_size, short_side",
    ),
    "an unknown key behind a choice": (
        "fetch.target.root",
        "x",
        "p.fetch.target.root: unknown key (value 'x'); allowed: collection, layout, seed",
    ),
    "an unknown section": ("pretain", 1, "p.pretain: unknown key (value 1); did you mean pretrain?"),
    "no number": (
        "pretrain.training.optim.lr",
        float("nan"),
        "p.pretrain.training.optim.lr: nan is not allowed: input should be a finite number",
    ),
    "infinity": (
        "pretrain.training.optim.weight_decay",
        float("inf"),
        "p.pretrain.training.optim.weight_decay: inf is not allowed: input should be a finite number",
    ),
    "a choice": (
        "manifest.source.decode.backend",
        "cv2",
        "p.manifest.source.decode.backend: 'cv2' is not allowed: input should be 'simplejpeg' or 'pillow'",
    ),
    "a microbatch that does not divide": (
        "pretrain.training.microbatch_size",
        48,
        "p.pretrain.training: microbatch_size 48 does not divide batch_size 64",
    ),
    "a view that is not evaluated": (
        "evaluate.views",
        ["ten"],
        "p: select.view: 'center' is not among evaluate.views ['ten']",
    ),
    "a strategy of no section": (
        "replicas.strategies",
        ["full", "best"],
        "p: replicas.strategies: 'best' is no section of finetune: ['full', 'linear', 'scratch']",
    ),
    "a seed twice": ("replicas.seeds", [1, 1], "p.replicas: seeds [1, 1]; wanted at least one, each once"),
    "no seed": ("replicas.seeds", [], "p.replicas: seeds []; wanted at least one, each once"),
    "a crop above the image": (
        "finetune.full.training.augment.scale",
        [0.5, 2.0],
        "p.finetune.full.training.augment: scale [0.5, 2.0]; wanted [low, high] with low <= high <= 1",
    ),
    "a resize below the crop": (
        "pretrain.resize_size",
        32,
        "p.pretrain: resize_size 32 is smaller than image_size 48",
    ),
    "a warm-up that does not end": (
        "pretrain.training.optim.schedule.warmup_epochs",
        12.0,
        "p.pretrain.training: optim.schedule.warmup_epochs: found 12.0; wanted less than 12 epochs",
    ),
    "a preprocess for a pretrained backbone": (
        "finetune.full.preprocess",
        "standardise",
        "p.finetune.full: preprocess standardise; wanted a value for start scratch and null for the others",
    ),
    "none for a fresh one": (
        "finetune.scratch.preprocess",
        None,
        "p.finetune.scratch: preprocess None; wanted a value for start scratch and null for the others",
    ),
    "training on test": (
        "finetune.full.splits",
        ["train", "test"],
        "p.finetune.full.splits.1: 'test' is not allowed: input should be 'train' or 'val'",
    ),
    "training on val alone": (
        "finetune.full.splits",
        ["val"],
        "p.finetune.full: splits ['val']; wanted [train] or [train, val]",
    ),
}


@pytest.mark.parametrize(("path", "value", "wanted"), GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_messages(path, value, wanted):
    assert message(changed(path, value)) == wanted


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("pretrain.arch.name", "resnet20"),
        ("pretrain.training.optim.schedule.kind", "linear"),
        ("fetch.source.collection", "cifar10"),
    ],
)
def test_an_unknown_kind_is_named_with_the_known_ones(path, value):
    text = message(changed(path, value))
    section, _, key = path.rpartition(".")
    assert text.startswith(f"p.{section}")
    assert repr(value) in text
    known = {"name": "'resnet18'", "kind": "'cosine'", "collection": "'folder'"}[key]
    assert known in text


@pytest.mark.parametrize("path", [EPOCHS, "select", "stats.target.crop_size", "finetune.full.preprocess"])
def test_a_missing_key_is_named_and_not_filled_in(path):
    assert message(without(path)) == f"p.{path}: missing; add it"


def test_every_problem_is_told_at_once():
    value = changed(EPOCHS, 0)
    value["select"]["view"] = "five"
    del value["report"]["num_samples"]
    assert message(value).splitlines() == [
        f"p.{EPOCHS}: 0 is not allowed: input should be greater than or equal to 1",
        "p.select.view: 'five' is not allowed: input should be 'center' or 'ten'",
        "p.report.num_samples: missing; add it",
    ]


def leaves(value: object, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, f"{path}.{name}" if path else name)]
    return [path]


@settings(max_examples=60, deadline=None)
@given(path=st.sampled_from(leaves(WHOLE)), data=st.data())
def test_any_leaf_that_is_removed_or_turned_into_nonsense_is_named(path, data):
    if data.draw(st.booleans()):
        assert f"p.{path}: missing" in message(without(path)) or path.split(".")[-1] in ("collection", "name", "kind")
    else:
        nonsense = data.draw(st.sampled_from([{"a": 1}, "no such thing", [[]]]))
        assert path.rpartition(".")[0] in message(changed(path, nonsense))


def test_sections_are_frozen():
    params = parse(Params, WHOLE, where="p")
    with pytest.raises(ValidationError, match="frozen"):
        params.pretrain.seed = 3
