"""All pairs of 64-bit hashes that differ in few bits, exactly, without looking at every pair.

Of two hashes within 11 bits of each other, at least one of four 16-bit bands differs in 2 bits at most (11 // 4): so
for each band the hashes are sorted by it, and each looks into the 137 buckets within 2 bits of its own.
n evenly spread hashes take about 2 · 4 · 137 · (n + n² / 2^17) steps, for 10^6 of them a sixtieth of all pairs, twice
(as they are and mirrored), and memory for a few numbers a hash. Many hashes all alike are many pairs and take longer.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rootstock.data.likeness import MIRROR

NUM_BANDS, BAND_BITS = 4, 16
MAX_RADIUS = 11
NUM_CANDIDATES = 1 << 21  # compared at a time


class Pairs(NamedTuple):
    """Some near pairs."""

    first: np.ndarray  # int64 (m,), places in `hashes`
    second: np.ndarray  # int64 (m,), > first
    distance: np.ndarray  # uint8 (m,), bits
    mirrored: np.ndarray  # bool (m,)


def near_pairs(hashes: np.ndarray, *, radius: int) -> Iterator[Pairs]:
    """Yield every pair within `radius` bits, as they are or one of them mirrored; each pair once.

    Args:
        hashes: uint64 (n,) of `data.likeness`.
        radius: bits, 0 to `MAX_RADIUS`.
    """
    assert 0 <= radius <= MAX_RADIUS, radius
    for turn in (0, MIRROR):
        for band in range(NUM_BANDS):
            values = _band(hashes, band)
            order = np.argsort(values, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=1 << BAND_BITS))])
            turned = turn >> BAND_BITS * band & (1 << BAND_BITS) - 1
            for flip in _flips(radius // NUM_BANDS):
                for left, right in _candidates(values[order], starts, flip ^ turned):
                    pairs = _near(hashes, order[left], order[right], radius=radius, band=band, turn=turn)
                    if len(pairs.first):
                        yield pairs


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
    return (hashes >> np.uint64(BAND_BITS * band) & np.uint64((1 << BAND_BITS) - 1)).astype(np.int64)


def _flips(num_bits: int) -> list[int]:
    """All masks of at most so many bits in a band."""
    return [
        sum(1 << place for place in places)
        for count in range(num_bits + 1)
        for places in itertools.combinations(range(BAND_BITS), count)
    ]


def _candidates(values: np.ndarray, starts: np.ndarray, mask: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of places in the sorted `values` that differ by exactly `mask`, each pair once, some at a time."""
    partner = values ^ mask
    asking = np.flatnonzero(values <= partner)  # of two buckets, one asks
    begin, end = starts[partner[asking]], starts[partner[asking] + 1]
    if mask == 0:
        begin = asking + 1
    counts = end - begin
    asking, begin, counts = (array[counts > 0] for array in (asking, begin, counts))
    total = np.cumsum(counts)
    done = 0
    while done < len(asking):
        before = total[done - 1] if done else 0
        upto = max(done + 1, int(np.searchsorted(total, before + NUM_CANDIDATES, side="right")))
        part = slice(done, upto)
        left = np.repeat(asking[part], counts[part])
        right = np.arange(len(left)) + np.repeat(begin[part] - (total[part] - counts[part] - before), counts[part])
        yield left, right
        done = upto


def _near(hashes: np.ndarray, left: np.ndarray, right: np.ndarray, *, radius: int, band: int, turn: int) -> Pairs:
    """Keep the candidates that are near and were not found before, by an earlier band or unmirrored."""
    difference = hashes[left] ^ hashes[right] ^ np.uint64(turn)
    near = np.flatnonzero(np.bitwise_count(difference) <= radius)
    left, right, difference = left[near], right[near], difference[near]
    is_new = np.ones(len(near), bool)
    for earlier in range(band):
        is_new &= np.bitwise_count(_band(difference, earlier)) > radius // NUM_BANDS
    if turn:
        is_new &= np.bitwise_count(difference ^ np.uint64(turn)) > radius
    left, right, difference = left[is_new], right[is_new], difference[is_new]
    return Pairs(
        np.minimum(left, right),
        np.maximum(left, right),
        np.bitwise_count(difference),
        np.full(len(left), turn != 0),
    )
