"""The search finds exactly the pairs that comparing all with all finds."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.data.likeness import MIRROR
from rootstock.data.near_pairs import MAX_RADIUS, near_pairs


def search(hashes: np.ndarray, radius: int) -> dict[tuple[int, int], tuple[int, bool]]:
    found = {}
    for pairs in near_pairs(hashes, radius=radius):
        for first, second, distance, mirrored in zip(*(column.tolist() for column in pairs), strict=True):
            assert (first, second) not in found, "each pair once"
            found[first, second] = (distance, mirrored)
    return found


def compare_all(hashes: np.ndarray, radius: int) -> dict[tuple[int, int], tuple[int, bool]]:
    found = {}
    for turn in (MIRROR, 0):
        apart = np.bitwise_count(hashes[:, None] ^ hashes[None] ^ np.uint64(turn))
        for first, second in np.argwhere(np.triu(apart <= radius, 1)).tolist():
            found[first, second] = (int(apart[first, second]), turn != 0)
    return found


def relatives(seed: int, num_hashes: int) -> np.ndarray:
    """Hashes of which many lie close to each other or to each other's mirror image."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, num_hashes, np.uint64)
    for place in range(1, num_hashes, 2):
        bits = rng.choice(64, rng.integers(0, 16), replace=False)
        flip = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
        turn = np.uint64(MIRROR if rng.random() < 0.3 else 0)
        hashes[place] = hashes[rng.integers(place)] ^ flip ^ turn
    return hashes


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.integers(0, MAX_RADIUS), num_hashes=st.integers(0, 60))
def test_every_near_pair_once_and_no_other(seed, radius, num_hashes):
    hashes = relatives(seed, num_hashes)
    assert search(hashes, radius) == compare_all(hashes, radius)


@pytest.mark.parametrize("radius", [0, 3, 7, 11])
def test_the_radius_itself_is_near_and_one_bit_more_is_not(radius):
    rng = np.random.default_rng(radius)
    for _ in range(20):
        one = int(rng.integers(0, 2**64, dtype=np.uint64))
        bits = [1 << place for place in rng.choice(64, radius + 1, replace=False).tolist()]
        near, far = one ^ sum(bits[1:]), one ^ sum(bits)
        assert search(np.array([one, near], np.uint64), radius) == {(0, 1): (radius, False)}
        assert search(np.array([one, near ^ MIRROR], np.uint64), radius) == {(0, 1): (radius, True)}
        assert search(np.array([one, far], np.uint64), radius) == {}


def test_many_of_one_hash_in_small_pieces(monkeypatch):
    monkeypatch.setattr("rootstock.data.near_pairs.NUM_CANDIDATES", 7)
    hashes = np.concatenate([np.zeros(12, np.uint64), relatives(1, 40)])
    assert search(hashes, 5) == compare_all(hashes, 5)


def test_a_hundred_thousand_take_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, np.uint64)
    hashes[99_999] = hashes[17] ^ np.uint64(0b1011 << 30)
    start = time.process_time()
    found = search(hashes, MAX_RADIUS)
    assert found[17, 99_999] == (3, False)
    assert 400 < len(found) < 600, "490 of 10^10 are within 11 bits by chance"
    assert time.process_time() - start < 60
