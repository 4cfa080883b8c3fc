"""The contract of the selection finds what was changed, also between the candidates and the choice."""

import copy

import pytest

from rootstock.schema import selection
from rootstock.schema.contract import ContractError, write_json

WHOLE = {
    "candidates": [
        {"strategy": "full", "seed": 0, "num_images": 50, "value": 0.75},
        {"strategy": "full", "seed": 1, "num_images": 50, "value": 0.5},
        {"strategy": "linear", "seed": 0, "num_images": 50, "value": 0.75},
    ],
    "metric": "mean_per_class",
    "selected": {"strategy": "full", "seed": 0},
    "split": "val",
    "view": "center",
}


def test_a_whole_selection_is_written_and_read(tmp_path):
    selection.write(tmp_path / "s.json", WHOLE)
    assert selection.read(tmp_path / "s.json") == WHOLE


def change(*place, value):
    changed = copy.deepcopy(WHOLE)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


MUTATIONS = {
    "test decides": (change("split", value="test"), r"split: found 'test', wanted 'val': test never decides anything"),
    "a choice that is no candidate": (change("selected", "seed", value=7), r"selected: found .*wanted one of the cand"),
    "a choice that is not the best": (change("selected", "seed", value=1), r"selected: found value 0.5, wanted 0.75"),
    "a better one than the choice": (change("candidates", 1, "value", value=0.8), r"found value 0.75, wanted 0.8"),
    "no choice": (change("selected", value=None), r"selected: found None, wanted strategy and seed"),
    "a choice without its seed": (change("selected", value={"strategy": "full"}), r"selected: found .*wanted strategy"),
    "a candidate twice": (change("candidates", 1, "seed", value=0), r"found .*full"),
    "an accuracy in percent": (change("candidates", 0, "value", value=75.0), r"row 0, column value: found 75.0"),
    "an accuracy that is null": (change("candidates", 0, "value", value=None), r"column value"),
    "no images": (change("candidates", 2, "num_images", value=0), r"row 2, column num_images: found 0"),
    "a seed in words": (change("candidates", 0, "seed", value="0"), r"column seed"),
    "candidates without rows": (change("candidates", value=[]), r"candidates: found no rows, wanted a list"),
    "a candidate with a run id": (change("candidates", 0, "run_id", value="f"), r"candidates: row 0: found \['num_i"),
    "an unknown metric": (change("metric", value="top5"), r"metric: found 'top5', wanted one of"),
    "an unknown view": (change("view", value="five"), r"view: found 'five', wanted one of \['center', 'ten'\]"),
    "a time": (change("time", value=1), r"found keys \['candidates', 'metric', 'selected', 'split', 'time', 'view'\]"),
}


@pytest.mark.parametrize(("value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_selection_is_found(tmp_path, value, message):
    write_json(tmp_path / "s.json", value)
    with pytest.raises(ContractError, match=message) as caught:
        selection.read(tmp_path / "s.json")
    assert str(caught.value).startswith(str(tmp_path / "s.json"))
