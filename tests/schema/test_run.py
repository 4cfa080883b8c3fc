"""Corruptions of a run's file are found and named."""

import copy

import pytest

from rootstock.schema import run
from rootstock.schema.contract import ContractError

GOOD = {
    "stage": "finetune",
    "names": ["full", 0],
    "run_id": "0" * 32,
    "attempts": 1,
    "started": "2026-01-01T00:00:00Z",
    "finished": "2026-01-01T00:01:00Z",
    "wall_seconds": 60.0,
    "seconds": {"data": 10.0},
    "images_per_second": 250.0,
    "energy_joules": None,
    "hardware": {**dict.fromkeys(run.HARDWARE, 1), "gpus": []},
    "environment": dict.fromkeys(run.ENVIRONMENT, "1"),
}


def without(value, key):
    return {name: inner for name, inner in value.items() if name != key}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "train"}, "row 0, column stage: found 'train'"),
        ({"attempts": 0}, "row 0, column attempts: found 0"),
        ({"attempts": 1.5}, "column attempts"),
        ({"run_id": ""}, "column run_id: found ''"),
        ({"started": "2026-01-01 00:00:00"}, "column started: found '2026-01-01 00:00:00'"),
        ({"wall_seconds": 0.0}, "column wall_seconds: found 0"),
        ({"images_per_second": -1.0}, "column images_per_second: found -1"),
        # across columns
        ({"finished": "2025-12-31T23:59:59Z"}, "wanted started <= finished"),
        ({"seconds": {"data": 61.0}}, "seconds.data: found 61.0, wanted 0 to 60.0"),
        ({"names": []}, "names: found [], wanted strategy and seed"),
        ({"stage": "pretrain"}, "names: found ['full', 0]"),
        ({"energy_joules": 5.0}, "energy_joules: found 5.0 without a GPU, wanted null"),
        ({"hardware": without(GOOD["hardware"], "num_threads")}, "hardware: found"),
        ({"environment": without(GOOD["environment"], "lock_sha256")}, "environment: found"),
        ({"loss": 1.0}, "found keys"),
    ],
)
def test_a_corruption_is_named(tmp_path, change, said):
    path = tmp_path / "x.json"
    with pytest.raises(ContractError) as caught:
        run.write(path, {**copy.deepcopy(GOOD), **change})
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert not path.exists()


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(ContractError, match="found keys"):
        run.write(tmp_path / "x.json", without(GOOD, "attempts"))


def test_equal_runs_give_equal_bytes(tmp_path):
    run.write(tmp_path / "a.json", GOOD)
    run.write(tmp_path / "b.json", dict(reversed(GOOD.items())))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert run.read(tmp_path / "a.json") == GOOD


def test_what_is_read_is_checked(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ContractError, match="found keys list"):
        run.read(tmp_path / "x.json")
