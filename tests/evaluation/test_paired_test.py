"""The exact one-sided test: brute force, laws, and that the detectable difference is exactly where the power is."""

from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from rootstock.evaluation.paired_test import detectable_difference, num_wanted, p_value, power

counts = st.integers(0, 400)


def test_p_value_is_that_of_every_way_the_coins_can_fall() -> None:
    for num_disagreements in range(13):
        falls = [sum(fall) for fall in product((0, 1), repeat=num_disagreements)]
        for num_only_b in range(num_disagreements + 1):
            as_good = sum(fall >= num_only_b for fall in falls) / len(falls)
            assert p_value(num_disagreements - num_only_b, num_only_b) == pytest.approx(as_good, rel=1e-12)


@given(only_a=counts, only_b=counts)
@settings(max_examples=50, deadline=None)
def test_p_value_is_that_of_scipys_test(only_a: int, only_b: int) -> None:
    if only_a + only_b:
        wanted = binomtest(only_b, only_a + only_b, alternative="greater").pvalue
        assert p_value(only_a, only_b) == pytest.approx(wanted, rel=1e-9)


@given(only_a=counts, only_b=counts)
@settings(max_examples=50, deadline=None)
def test_p_value_falls_with_wins_and_rises_with_losses(only_a: int, only_b: int) -> None:
    assert p_value(only_a, only_b + 1) <= p_value(only_a, only_b) <= p_value(only_a + 1, only_b)


@given(only_a=counts, only_b=counts, level=st.floats(1e-6, 0.4999))
@settings(max_examples=100, deadline=None)
def test_never_is_each_better_than_the_other(only_a: int, only_b: int, level: float) -> None:
    assert not (p_value(only_a, only_b) <= level and p_value(only_b, only_a) <= level)


@given(num_disagreements=st.integers(0, 3000), level=st.floats(1e-9, 0.4999))
@settings(max_examples=200, deadline=None)
def test_the_number_wanted_is_the_smallest_that_suffices(num_disagreements: int, level: float) -> None:
    number = int(num_wanted(num_disagreements, level=level))
    assert 0 < number <= num_disagreements + 1
    if number <= num_disagreements:
        assert p_value(num_disagreements - number, number) <= level
    assert p_value(num_disagreements - number + 1, number - 1) > level


@pytest.mark.parametrize(("difference", "disagreement"), [(0.0, 0.3), (0.2, 0.3), (0.3, 0.3), (0.4, 0.3)])
def test_power_is_that_of_every_outcome(difference: float, disagreement: float) -> None:
    num_images, level = 20, 0.05
    share = max(disagreement, difference)
    only_a, only_b = (share - difference) / 2, (share + difference) / 2
    outcomes = [(a, b) for a in range(num_images + 1) for b in range(num_images + 1 - a) if p_value(a, b) <= level]
    wanted = sum(
        multinomial.pmf([a, b, num_images - a - b], num_images, [only_a, only_b, 1 - only_a - only_b])
        for a, b in outcomes
    )
    found = power(difference, num_images=num_images, disagreement=disagreement, level=level)
    assert found == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
@pytest.mark.parametrize(("num_images", "num_disagreements"), [(170, 0), (170, 24), (510, 70), (50_000, 8_000)])
def test_power_is_reached_at_the_detectable_difference_and_not_below(
    num_images: int, num_disagreements: int, level: float
) -> None:
    found = detectable_difference(num_disagreements, num_images=num_images, level=level, wanted_power=0.85)
    assert found is not None
    known = {"num_images": num_images, "disagreement": num_disagreements / num_images, "level": level}
    assert power(found, **known) >= 0.85 > power(found - 1e-4 * found, **known)


@given(num_disagreements=st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_a_stricter_level_and_fewer_images_detect_less(num_disagreements: int) -> None:
    loose, strict, fewer = (
        detectable_difference(number, num_images=num_images, level=level, wanted_power=0.85)
        for number, num_images, level in (
            (2 * num_disagreements, 1000, 0.05),
            (2 * num_disagreements, 1000, 0.005),
            (num_disagreements, 500, 0.05),
        )
    )
    assert loose is not None
    assert strict is not None
    assert fewer is not None
    assert loose < strict
    assert loose < fewer


def test_too_few_images_show_nothing() -> None:
    assert detectable_difference(0, num_images=4, level=0.05, wanted_power=0.85) is None
    assert 1 / 2**5 <= 0.05 < 1 / 2**4
    assert comb(5, 5) / 2**5 == p_value(0, 5)
    assert detectable_difference(0, num_images=5, level=0.05, wanted_power=0.85) == pytest.approx(0.85**0.2, abs=1e-6)
