import itertools
from pathlib import Path

import pytest

from rootstock.evaluation.select import choose, unexpected_folders
from rootstock.schema import selection


def candidate(strategy: str, seed: int, value: float, top5: float = 0.9, log_loss: float = 1.0, n: int = 50) -> dict:
    of_view = {
        "num_images": n,
        "num_classes": 5,
        "top1": {"value": 1 - value, "low": 0.0, "high": 1.0},
        "top5": {"value": top5, "low": 0.0, "high": 1.0},
        "mean_per_class": {"value": value, "low": 0.0, "high": 1.0},
        "log_loss": log_loss,
        "ece": 0.1,
    }
    # on test the order is the other way round: it must not be looked at
    test = of_view | {"mean_per_class": {"value": 1 - value, "low": 0.0, "high": 1.0}}
    return {"strategy": strategy, "seed": seed, "metrics": {"val": {"center": of_view}, "test": {"center": test}}}


def test_the_best_on_validation_is_chosen(tmp_path: Path) -> None:
    found = choose(
        [candidate("scratch", 0, 0.5), candidate("full", 1, 0.8), candidate("full", 0, 0.7)],
        view="center",
        metric="mean_per_class",
    )
    assert found == {
        "candidates": [
            {"strategy": "full", "seed": 0, "num_images": 50, "value": 0.7},
            {"strategy": "full", "seed": 1, "num_images": 50, "value": 0.8},
            {"strategy": "scratch", "seed": 0, "num_images": 50, "value": 0.5},
        ],
        "metric": "mean_per_class",
        "selected": {"strategy": "full", "seed": 1},
        "split": "val",
        "view": "center",
    }
    selection.write(tmp_path / "challenger.json", found)
    assert selection.read(tmp_path / "challenger.json") == found


def test_the_metric_decides() -> None:
    candidates = [candidate("full", 0, 0.7), candidate("full", 1, 0.8)]
    assert choose(candidates, view="center", metric="top1")["selected"] == {"strategy": "full", "seed": 0}


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        ([candidate("a", 0, 0.5, top5=0.8), candidate("b", 0, 0.5, top5=0.9)], ("b", 0)),
        ([candidate("a", 0, 0.5, log_loss=2.0), candidate("b", 0, 0.5, log_loss=1.0)], ("b", 0)),
        ([candidate("b", 0, 0.5), candidate("a", 10, 0.5), candidate("a", 9, 0.5)], ("a", 9)),
    ],
)
def test_ties_are_broken_the_same_way_in_any_order(candidates: list[dict], wanted: tuple[str, int]) -> None:
    for order in itertools.permutations(candidates):
        selected = choose(order, view="center", metric="mean_per_class")["selected"]
        assert (selected["strategy"], selected["seed"]) == wanted


def test_errors_name_the_replica_and_the_cure() -> None:
    with pytest.raises(
        ValueError, match=r"replica full-0: select\.view: found val metrics of views \['center'\], wanted ten"
    ):
        choose([candidate("full", 0, 0.5)], view="ten", metric="top1")
    with pytest.raises(ValueError, match=r"unequal numbers of val images \{'a-0': 50, 'b-0': 49\}"):
        choose([candidate("a", 0, 0.5), candidate("b", 0, 0.5, n=49)], view="center", metric="top1")
    with pytest.raises(ValueError, match="found no replicas"):
        choose([], view="center", metric="top1")


def test_a_folder_of_no_replica_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "evaluate"
    unexpected_folders(folder, ["full-0"])  # nothing there yet
    for name in ("full-0", "full-7", "old-1"):
        (folder / name).mkdir(parents=True)
    (folder / ".gitignore").touch()
    with pytest.raises(ValueError, match=r"found full-7, old-1, which `replicas` .* does not name, .*`make tidy`"):
        unexpected_folders(folder, ["full-0", "linear-0"])
    unexpected_folders(folder, ["full-0", "full-7", "old-1"])
