"""How the benchmarks measure: intervals, the model of the lock, contenders as processes. Figures are not judged."""

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest


@pytest.fixture
def benchmarks(repository: Path, monkeypatch) -> Path:
    folder = repository / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("rounds", "gil_share", "memory", "record", "collection", "leaks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("num_values", "wanted"), [(3, (0, 2)), (7, (0, 6)), (8, (1, 6)), (11, (2, 8)), (15, (3, 11))])
def test_interval_by_order_statistics(benchmarks, num_values, wanted) -> None:
    rounds = importlib.import_module("rounds")
    values = [float(value) for value in range(num_values)]
    assert rounds.interval(values[::-1]) == wanted, "David and Nagaraja, order statistics, table for the median"


def test_a_lower_end_below_the_bar_is_a_miss(benchmarks, capsys) -> None:
    rounds = importlib.import_module("rounds")

    def result(rates: list[float]) -> types.SimpleNamespace:
        return rounds.Result(None, {}, [{"num_images": rate, "wall_seconds": 1, "cpu_seconds": 1} for rate in rates])

    results = {"base": result([10] * 8), "ours": result([19, 19.5, 20, 21, 21, 21, 21, 21])}
    met, missed, absent = rounds.judge(
        [("a", "ours", "base", 1.95), ("b", "ours", "base", 2.0), ("c", "peer", "base", 1.0)], results
    )
    assert (met["met"], missed["met"], absent["met"]) == (True, False, None)
    assert met["found"] == {"median": 2.1, "low": 1.95, "high": 2.1, "num_rounds": 8}
    assert absent["reason"] == "peer was not measured"
    assert "MISSED  b: 2.100 (1.950–2.100), wanted >= 2.0" in capsys.readouterr().out


def test_threads_that_share_a_lock_end_at_its_rate(benchmarks) -> None:
    scaled = importlib.import_module("gil_share").scaled
    assert scaled(0.0, 16) == pytest.approx(16)
    assert scaled(1.0, 16) == pytest.approx(1)
    assert scaled(0.3, 1) == pytest.approx(1)
    assert scaled(0.5, 2) == pytest.approx(1.6), "the lock is free only when both threads work beside it: 1 time in 5"
    assert scaled(0.1, 400) == pytest.approx(10)


def test_a_contender_answers_orders_and_its_prints_do_not_disturb(benchmarks, tmp_path: Path) -> None:
    script = tmp_path / "contender.py"
    script.write_text(
        "import resident\n"
        "def make(spec):\n"
        "    print('noise')\n"
        "    return {'how': spec['how']}, resident.stream(iter(lambda: range(4), None), images=Images)\n"
        "class Images(list):\n"
        "    shape, dtype = (4, 2), 'torch.uint8'\n"
        "    def __getitem__(self, key): return self\n"
        "    def double(self): return self\n"
        "    def mean(self): return 7\n"
        "resident.serve(make)\n"
    )
    done = subprocess.run(
        [sys.executable, script, json.dumps({"how": "here"})],
        input='{"warm_up": 1, "num_batches": 3}\n' * 2,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(benchmarks / "peers")},
    )
    about, *turns = map(json.loads, done.stdout.splitlines())
    assert about == {"how": "here"}
    assert [(turn["num_images"], turn["output"], turn["mean"]) for turn in turns] == [(12, "uint8 4×2", 7.0)] * 2
    assert "noise" in done.stderr


def test_planted_copies_of_generated_images_are_found(benchmarks) -> None:
    leaks = importlib.import_module("leaks")
    figures = leaks.measure(leaks.gather(leaks.generated(2), every=2))
    assert figures["num_images"] == 2 * len(leaks.FLOWERS)
    slightly_cropped = {"cropped by 3 %": 0.8, "cropped by 3 %, mirrored": 0.8, "cropped by 5 %": 0.5}
    for kind, row in figures["recall"].items():
        assert row["n"] == len(leaks.FLOWERS)
        if kind != "cropped by 10 %":
            assert row["11"] >= slightly_cropped.get(kind, 0.9), kind
    assert figures["found_unplanted"]["11"]["with_thumbnail"] == 0


@pytest.mark.parametrize(("failure", "wanted"), [(None, "run `make bench-peers`"), ("no compiler", "no compiler")])
def test_an_absent_peer_says_why(benchmarks, tmp_path, monkeypatch, failure, wanted) -> None:
    rounds = importlib.import_module("rounds")
    monkeypatch.setattr(rounds, "ENVIRONMENTS", tmp_path)
    if failure:
        (tmp_path / "dali.failed.txt").write_text(failure)
    with pytest.raises(rounds.SkippedError, match=wanted):
        rounds.interpreter("dali")


def test_every_environment_is_pinned(repository: Path) -> None:
    files = list((repository / "benchmarks/requirements").glob("*.txt"))
    assert {path.stem for path in files} == {"dali", "ffcv", "img2dataset", "timm"}
    for path in files:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines, path.name
        assert all("==" in line for line in lines), path.name
