"""Streams are named: equal names give equal draws on every machine, other names other draws."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock import rng

names = st.lists(
    st.one_of(st.integers(-5, 10**12), st.text(max_size=5).filter(lambda text: "\x1f" not in text)), max_size=4
)


def test_known_answers():
    """They name every order, view and initial weight ever made: a change here changes all results."""
    assert rng.key("order", 0, 0) == 7549222084526661114
    assert rng.key() == 1449310910991872227
    assert rng.stream("order", 0, 0).integers(1000, size=4).tolist() == [68, 418, 703, 568]
    generator = random.Random()
    generator.gauss(0, 1)  # leaves a second draw behind, which must be forgotten
    rng.restart(generator, "order", 0, 0)
    assert [round(generator.random(), 6), round(generator.gauss(0, 1), 6)] == [0.165696, -1.006057]


@settings(max_examples=100, deadline=None)
@given(first=names, second=names)
def test_other_names_are_other_keys(first, second):
    def same(a, b):
        return len(a) == len(b) and all(type(x) is type(y) and x == y for x, y in zip(a, b, strict=True))

    assert (rng.key(*first) == rng.key(*second)) == same(first, second)
    assert 0 <= rng.key(*first) < 2**64


def test_types_and_order_of_names_matter():
    keys = [rng.key(*parts) for parts in ((1, "a"), ("1", "a"), ("a", 1), ("a1",), ("a", 1, ""), (1, "a", 0))]
    assert len(set(keys)) == len(keys)


def test_another_process_draws_the_same():
    code = "from rootstock import rng; print(rng.stream('x', 3).standard_normal(3).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(rng.stream("x", 3).standard_normal(3).tolist())


def test_streams_share_no_state():
    first, again = rng.stream("x"), rng.stream("x")
    first.random(100)
    rng.stream("y").random(100)
    assert again.random() == rng.stream("x").random()


def test_neighbouring_streams_are_not_correlated():
    draws = np.array([rng.stream("sample", number).standard_normal(2000) for number in range(8)])
    correlations = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(correlations).max() == pytest.approx(0, abs=0.1)
