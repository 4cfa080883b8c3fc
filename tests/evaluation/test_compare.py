"""Paired comparison: known answers, laws, coverage and power in simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from rootstock.evaluation import compare


def table(labels: list[int], predicted: list[int], *, split: str = "test", view: str = "center") -> pd.DataFrame:
    keys = [f"image_{number:04d}" for number in range(len(labels))]
    return pd.DataFrame({"split": split, "view": view, "key": keys, "label": labels, "predicted": predicted})


def simulated(
    draws: np.random.Generator, *, per_class: int, num_classes: int, accuracy: float, gain: float
) -> pd.DataFrame:
    """B equals A on most images; where they part, B is right more often by `gain` of all images."""
    labels = np.repeat(np.arange(num_classes), per_class)
    u = draws.random(len(labels))
    only_a, only_b = 0.08 - gain / 2, 0.08 + gain / 2
    both = accuracy - only_a
    a = (u < both) | ((u >= both) & (u < both + only_a))
    b = (u < both) | ((u >= both + only_a) & (u < both + only_a + only_b))
    return pd.DataFrame({"label": labels, "correct_a": a, "correct_b": b})


def test_known_answer() -> None:
    a = table([0, 0, 1, 1, 2], [0, 0, 1, 0, 0])
    b = table([0, 0, 1, 1, 2], [0, 1, 1, 1, 2])
    found = compare.compare(compare.align(a, b, split="test", view="center"), seed=0)
    assert (found.num_images, found.num_classes) == (5, 3)
    assert (found.num_only_a, found.num_only_b) == (1, 2)
    assert found.accuracy_a == pytest.approx(0.6)
    assert found.accuracy_b == pytest.approx(0.8)
    assert found.difference == pytest.approx(0.2)
    assert found.per_class_difference == pytest.approx((-0.5 + 0.5 + 1) / 3)
    assert found.p_value == pytest.approx(1.0)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 8), (3, 9), (9, 3), (50, 71)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    wanted = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert compare.mcnemar(only_a, only_b) == pytest.approx(wanted)


def test_swapping_the_two_turns_the_signs() -> None:
    pairs = simulated(np.random.default_rng(0), per_class=20, num_classes=5, accuracy=0.6, gain=0.05)
    swapped = pairs.rename(columns={"correct_a": "correct_b", "correct_b": "correct_a"})
    one, other = compare.compare(pairs, seed=0), compare.compare(swapped, seed=0)
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    assert one.smallest_difference == other.smallest_difference


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.iloc[1:], "1 images are in one table only, first 'image_0000'"),
        (lambda frame: frame.assign(label=[1, 1, 1]), "1 images have two labels, first 'image_0000'"),
        (lambda frame: frame.assign(view="ten"), "B: found splits and views"),
    ],
)
def test_tables_of_other_images_are_refused(change, message: str) -> None:
    a = table([0, 1, 1], [0, 1, 0])
    with pytest.raises(ValueError, match=message):
        compare.align(a, change(a.copy()), split="test", view="center")


@pytest.mark.parametrize(("per_class", "num_classes"), [(40, 17), (10, 60)])
def test_intervals_cover_and_the_test_keeps_its_level(
    monkeypatch: pytest.MonkeyPatch, per_class: int, num_classes: int
) -> None:
    monkeypatch.setattr(compare, "NUM_DRAWS", 1000)
    draws, num_trials = np.random.default_rng(1), 400
    covered, covered_per_class, false = 0, 0, 0
    for trial in range(num_trials):
        pairs = simulated(draws, per_class=per_class, num_classes=num_classes, accuracy=0.6, gain=0.0)
        found = compare.compare(pairs, seed=trial)
        covered += found.low <= 0 <= found.high
        covered_per_class += found.per_class_low <= 0 <= found.per_class_high
        false += found.p_value < compare.LEVEL
    # 95 % ± 3 standard errors of 400 trials (1.1 %), on the side that would flatter us
    assert covered / num_trials >= 0.917
    assert covered_per_class / num_trials >= 0.917
    assert false / num_trials <= 0.083


def test_the_smallest_difference_is_shown_four_times_in_five() -> None:
    draws, num_trials = np.random.default_rng(2), 300
    gain = compare.smallest_difference(round(0.16 * 680), num_images=680)
    pairs = (
        simulated(draws, per_class=40, num_classes=17, accuracy=0.6, gain=gain) for _ in range(num_trials)
    )  # fmt: skip
    counts = [((p["correct_a"] & ~p["correct_b"]).sum(), (~p["correct_a"] & p["correct_b"]).sum()) for p in pairs]
    shown = sum(compare.mcnemar(int(a), int(b)) < compare.LEVEL for a, b in counts)
    assert 0.70 <= shown / num_trials <= 0.90


def test_description_names_both_and_the_classes() -> None:
    a = table([0, 0, 1, 1, 2], [0, 0, 1, 0, 0])
    b = table([0, 0, 1, 1, 2], [0, 1, 1, 1, 2])
    pairs = compare.align(a, b, split="test", view="center")
    text = compare.describe(pairs, class_names=["x", "y", "z"], a="old", b="new", split="test", view="center")
    assert text.startswith("new against old on test, view center: 5 images of 3 classes")
    assert "60.0 % → 80.0 %" in text
    assert "z    0.0 % → 100.0 %" in text
