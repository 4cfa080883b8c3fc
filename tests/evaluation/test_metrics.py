import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock import rng
from rootstock.evaluation import metrics
from rootstock.evaluation.predictions import table
from rootstock.schema import metrics as contract
from rootstock.schema.contract import ContractError


def rows_of(
    labels: list[int], probabilities: list[list[float]], split: str = "test", view: str = "center"
) -> pd.DataFrame:
    keys = [f"k{index}" for index in range(len(labels))]
    return table(split=split, view=view, keys=keys, labels=np.array(labels), probabilities_NK=np.array(probabilities))


def random_rows(seed: int, num_images: int, num_classes: int) -> pd.DataFrame:
    draw = rng.stream("test-metrics", seed)
    labels = draw.integers(0, num_classes, num_images)
    scores = draw.normal(size=(num_images, num_classes)) + 2 * np.eye(num_classes)[labels]
    exponent = np.exp(scores)
    return rows_of(labels.tolist(), (exponent / exponent.sum(axis=1, keepdims=True)).tolist())


def flat(found: dict) -> dict[str, float]:
    return {
        f"{name}.{part}": number
        for name in found
        if isinstance(found[name], dict)
        for part, number in found[name].items()
    } | {name: number for name, number in found.items() if not isinstance(number, dict)}


def test_known_answers() -> None:
    rows = rows_of([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    found = metrics.compute(rows)["test"]["center"]
    assert (found["num_images"], found["num_classes"]) == (4, 2)
    assert found["top1"]["value"] == 0.75
    assert found["mean_per_class"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["top5"]["value"] == 1.0  # two classes: the best two are all
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.6]).mean(), rel=1e-6)
    # one image a bin but 0.7 and 0.6, which lie in (0.667, 0.733] and (0.533, 0.6]
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 4, rel=1e-6)


def test_wilson_agrees_with_the_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29
    wanted = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (num_correct, num_images), (low, high) in wanted.items():
        interval = metrics.wilson(num_correct, num_images)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("sizes", "accuracy"),
    [(np.full(102, 10), 0.6), (np.full(102, 10), 0.98), (np.full(8, 10), 0.9), (np.tile([1, 2, 3, 5], 5), 0.6)],
)
def test_mean_per_class_interval_covers(sizes: np.ndarray, accuracy: float) -> None:
    draw = rng.stream("coverage", len(sizes), int(1000 * accuracy))
    truth = draw.beta(10 * accuracy, 10 * (1 - accuracy), size=len(sizes))
    num_draws = 1000
    hits = 0
    for _ in range(num_draws):
        interval = metrics.stratified(draw.binomial(sizes, truth), sizes)
        hits += interval.low <= truth.mean() <= interval.high
    assert 0.92 <= hits / num_draws <= 0.985


def test_mean_per_class_interval_of_one_class_is_wilsons() -> None:
    # n − 1 in the variance makes the effective number n − 1
    found = metrics.stratified(np.array([40]), np.array([51]))
    assert found.value == 40 / 51
    wanted = metrics._score(40 / 51, 50)
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("correct", [0, 1])
def test_mean_per_class_interval_keeps_a_width_when_all_are_right_or_wrong(correct: int) -> None:
    sizes = np.full(10, 10)
    assert metrics.stratified(correct * sizes, sizes) == metrics.wilson(correct * 100, 100)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 1)), min_size=1, max_size=20))
def test_interval_holds_its_value(classes: list[tuple[int, float]]) -> None:
    sizes = np.array([size for size, _ in classes])
    correct = np.array([round(size * share) for size, share in classes])
    interval = metrics.stratified(correct, sizes)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_laws(seed: int, num_classes: int) -> None:
    rows = random_rows(seed, 60, num_classes)
    found = metrics.compute(rows)["test"]["center"]
    assert found["top1"]["value"] <= found["top5"]["value"]
    assert num_classes > 5 or found["top5"]["value"] == 1
    # the order of the images means nothing
    shuffled = rows.sample(frac=1, random_state=seed)
    again = metrics.compute(shuffled)["test"]["center"]
    assert flat(again) == pytest.approx(flat(found))
    counts = metrics.confusion(rows)
    assert counts.sum() == 60
    assert np.trace(counts) == round(found["top1"]["value"] * 60)
    assert metrics.reliability(rows)["num_images"].sum() == 60


def test_splits_and_views_are_kept_apart() -> None:
    frame = pd.concat(
        [
            rows_of([0, 1], [[0.9, 0.1], [0.2, 0.8]], "val"),
            rows_of([0, 1], [[0.1, 0.9], [0.8, 0.2]], "test"),
            rows_of([0, 1], [[0.9, 0.1], [0.8, 0.2]], "test", "ten"),
        ]
    )
    found = metrics.compute(frame)
    assert {(s, v): m["top1"]["value"] for s, views in found.items() for v, m in views.items()} == {
        ("val", "center"): 1.0,
        ("test", "center"): 0.0,
        ("test", "ten"): 0.5,
    }
    with pytest.raises(AssertionError, match="one split and view"):
        metrics.confusion(frame)


def test_a_class_without_images_does_not_enter_the_mean() -> None:
    rows = rows_of([0, 2], [[0.9, 0.05, 0.05], [0.5, 0.1, 0.4]])
    found = metrics.compute(rows)["test"]["center"]
    assert (found["num_classes"], found["mean_per_class"]["value"]) == (2, 0.5)
    classes = metrics.per_class(rows)
    assert math.isnan(classes.loc[1, "accuracy"])
    assert classes["num_images"].tolist() == [1, 0, 1]


def test_a_probability_of_zero_keeps_log_loss_finite() -> None:
    found = metrics.compute(rows_of([0], [[0.0, 1.0]]))["test"]["center"]
    assert found["log_loss"] == pytest.approx(87.3, abs=0.1)
    assert found["ece"] == 1.0


def test_a_calibrated_model_has_no_calibration_error() -> None:
    # of ten images at 0.7, seven are right
    rows = rows_of([0] * 7 + [1] * 3, [[0.7, 0.3]] * 10)
    assert metrics.compute(rows)["test"]["center"]["ece"] == pytest.approx(0, abs=1e-7)


def test_spread_over_seeds() -> None:
    found = metrics.spread([0.70, 0.72, 0.74])
    assert found.mean == pytest.approx(0.72)
    assert found.sd == pytest.approx(0.02)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert metrics.spread([0.5]) == (0.5, None, 1, None, None)


@pytest.fixture
def valid() -> dict:
    return metrics.compute(pd.concat([random_rows(1, 40, 7), random_rows(2, 40, 7).assign(view="ten")]))


def test_metrics_file_keeps_every_number(valid: dict, tmp_path: Path) -> None:
    contract.write(tmp_path / "metrics.json", valid)
    assert contract.read(tmp_path / "metrics.json") == valid
    first = (tmp_path / "metrics.json").read_bytes()
    contract.write(tmp_path / "metrics.json", json.loads(json.dumps(valid)))
    assert (tmp_path / "metrics.json").read_bytes() == first


@pytest.mark.parametrize(
    ("where", "name", "value", "message"),
    [
        (
            ("test", "center"),
            "num_images",
            0,
            r"row 0, column num_images: found 0, wanted greater_than_or_equal_to\(1\)",
        ),
        (("test", "center"), "ece", 1.5, r"column ece: found 1.5, wanted in_range\(0, 1\)"),
        (("test", "center"), "log_loss", -0.1, "column log_loss: found -0.1"),
        (("test", "center", "top1"), "low", 0.999, "wanted top1.low <= top1.value <= top1.high"),
        (("test", "center", "top5"), "value", 0.01, r"row 0: found \{'split': 'test', .*, wanted top1 <= top5"),
        (("test", "center"), "num_classes", 41, "wanted num_classes <= num_images"),
        (("test", "ten"), "num_images", 39, "wanted as many images in every view of a split"),
        (("test", "center", "top1"), "value", "0.9", "column top1.value"),
        (("test", "center"), "f1", 0.3, r"test\.center: found keys .*'f1'.*, wanted"),
        (("test",), "center", 3, r"test\.center: found int, wanted a mapping"),
    ],
)
def test_a_corrupted_metrics_file_is_refused(
    valid: dict, tmp_path: Path, where: tuple[str, ...], name: str, value: object, message: str
) -> None:
    part = valid
    for step in where:
        part = part[step]
    part[name] = value
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(valid))
    with pytest.raises(ContractError, match=message) as error:
        contract.read(path)
    assert str(path) in str(error.value)


def test_an_empty_metrics_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ContractError, match="found no metrics"):
        contract.read(tmp_path / "metrics.json")


def test_bins_of_confidence_hold_their_upper_end() -> None:
    rows = rows_of([0, 0, 1], [[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    bins = metrics.reliability(rows)
    assert bins["num_images"].to_numpy().nonzero()[0].tolist() == [7, 11, 14]
    filled = bins[bins["num_images"] > 0]
    assert filled["confidence"].tolist() == [0.5, 0.75, 1.0]
    assert ((filled["low"] < filled["confidence"]) & (filled["confidence"] <= filled["high"])).all()
    assert filled["accuracy"].tolist() == [1.0, 1.0, 1.0]
