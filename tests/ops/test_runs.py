"""The file of one run: written and read back, with or without tracking."""

import pytest

from rootstock.ops import runs
from rootstock.schema.run import ENVIRONMENT, HARDWARE

FACTS = {
    "stage": "finetune",
    "names": ("full", 0),
    "run_id": "0" * 32,
    "started": 1_000_000_000.0,
    "finished": 1_000_000_060.9,
    "wall_seconds": 60.9,
    "seconds": {"data": 10.0, "all": 60.9},
    "images_per_second": 250.5,
    "energy_joules": None,
    "attempts": 1,
    "hardware": {**dict.fromkeys(HARDWARE, 1), "gpus": []},
    "environment": dict.fromkeys(ENVIRONMENT, "1"),
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"run_id": None},
        {"stage": "pretrain", "names": ()},
        {"energy_joules": 5.0, "hardware": {**FACTS["hardware"], "gpus": [{"name": "card"}], "world_size": 2}},
    ],
)
def test_what_is_written_is_read(tmp_path, change):
    path = tmp_path / "reports" / "runs" / "x.json"
    facts = {**FACTS, **change}
    runs.write(path, **facts)
    found = runs.read(path)
    assert (found["started"], found["finished"]) == ("2001-09-09T01:46:40Z", "2001-09-09T01:47:40Z")
    same = set(facts) - {"started", "finished", "names"}
    assert {key: found[key] for key in same} == {key: facts[key] for key in same}
    assert found["names"] == list(facts["names"])
