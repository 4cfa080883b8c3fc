"""The verdict on a reproduction: every branch, with nothing run."""

import math

import pytest

from rootstock.ops.dvc_lock import Record
from rootstock.ops.reproduction.outcome import Band, Difference, band, compare, judge, num_compared


def record(name: str, **outs: str) -> Record:
    return Record(name, "true", {}, {}, {path.replace("__", "/"): md5 for path, md5 in outs.items()})


CHAIN = [
    record("stats@target", data__stats="s"),
    record("pretrain", models__pretrain="p.dir", reports__runs__pretrain="t1"),
    record("finetune@full-0", models__finetune__full="f.dir"),
    record("evaluate@full-0", reports__evaluate="e", reports__runs__evaluate="t2"),
]
SEEDS = band([0.80, 0.82, 0.84])


def rebuilt(**changed: str | None) -> dict[str, Record]:
    """The chain with other hashes for some outputs; None leaves one out."""
    names = {path.replace("__", "/"): md5 for path, md5 in changed.items()}
    found = {}
    for one in CHAIN:
        outs = {path: names.get(path, md5) for path, md5 in one.outs.items()}
        found[one.name] = one._replace(outs={path: md5 for path, md5 in outs.items() if md5 is not None})
    return found


def verdict(*, metric: float | None = 0.82, seeds: Band | None = SEEDS, **changed: str | None) -> str:
    return judge(compare(CHAIN, rebuilt(**changed)), metric=metric, seeds=seeds).text


def test_equal_hashes_are_identical_whatever_the_runs_note():
    assert verdict(reports__runs__pretrain="other", reports__runs__evaluate="other") == "identical"
    assert num_compared(CHAIN) == 4


def test_reports_runs_alone_are_left_out():
    found = rebuilt(reports__runs__pretrain="x", reports__evaluate="y")
    assert compare(CHAIN, found) == [Difference("evaluate@full-0", "reports/evaluate", "e", "y")]


def test_noise_excuses_no_data_stage():
    outcome = judge(compare(CHAIN, rebuilt(data__stats="x", reports__evaluate="y")), metric=0.82, seeds=SEEDS)
    assert outcome.text == "differs, first at stats@target"
    assert "exact by design" in outcome.why
    assert not outcome.is_good


def test_a_training_that_differs_is_noise_while_the_metric_is_one_of_a_seeds():
    assert verdict(models__pretrain="x") == "within seed noise (first at pretrain)"
    assert verdict(models__finetune__full="x") == "within seed noise (first at finetune@full-0)"
    assert verdict(reports__evaluate="x") == "within seed noise (first at evaluate@full-0)"


@pytest.mark.parametrize("metric", [SEEDS.low - 1e-9, SEEDS.high + 1e-9])
def test_a_metric_outside_the_band_differs(metric):
    outcome = judge(compare(CHAIN, rebuilt(models__pretrain="x")), metric=metric, seeds=SEEDS)
    assert outcome.text == "differs, first at pretrain"
    assert "outside 0.7" in outcome.why
    assert "0.8000, 0.8200, 0.8400" in outcome.why


@pytest.mark.parametrize("metric", [SEEDS.low, SEEDS.high])
def test_the_bands_ends_are_within(metric):
    assert verdict(models__pretrain="x", metric=metric).startswith("within")


@pytest.mark.parametrize("values", [[], [0.82], [0.82, 0.83]])
def test_from_fewer_than_three_seeds_noise_is_not_known(values):
    outcome = judge(compare(CHAIN, rebuilt(models__pretrain="x")), metric=0.82, seeds=band(values))
    assert outcome.text == "differs, first at pretrain"
    assert "fewer than 3 seeds of this strategy are recorded" in outcome.why


def test_without_an_evaluation_there_is_nothing_to_compare_with_noise():
    assert verdict(models__pretrain="x", metric=None) == "differs, first at pretrain"


def test_an_output_or_a_stage_that_was_not_made_differs():
    assert compare(CHAIN, rebuilt(models__pretrain=None))[0].found is None
    without = {name: one for name, one in rebuilt().items() if name != "stats@target"}
    assert compare(CHAIN, without) == [Difference("stats@target", "data/stats", "s", None)]


def test_the_band_is_students_predictive_interval():
    # by hand: t_{0.975, 2} = 4.302653, sd 0.02, sqrt(1 + 1/3)
    half = 4.302653 * 0.02 * math.sqrt(4 / 3)
    assert SEEDS.low == pytest.approx(0.82 - half, abs=1e-7)
    assert SEEDS.high == pytest.approx(0.82 + half, abs=1e-7)
    assert band([0.5, 0.5, 0.5])[:2] == (0.5, 0.5)


def test_the_verdict_states_how_wide_the_band_is():
    outcome = judge(compare(CHAIN, rebuilt(models__pretrain="x")), metric=0.82, seeds=SEEDS)
    assert outcome.why == (
        "the metric 0.8200 is within 0.7206 to 0.9194, a band 0.1987 wide where one more training falls with 95 % "
        "(from 3 recorded seeds: 0.8000, 0.8200, 0.8400)"
    )
