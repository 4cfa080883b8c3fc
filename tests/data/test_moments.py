"""Sums are exact integers, and merging is addition: any cut, any order, the same bits."""

import itertools
import random
from collections import Counter
from decimal import Decimal, localcontext
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.data import moments
from rootstock.data.eigen import symmetric_eigen
from rootstock.data.moments import CHUNK, STD_BITS, Adder, Moments


def moments_of(images, size: int) -> Moments:
    adder = Adder(size)
    for number, image in enumerate(images):
        adder.add(image, label=number % 3, width=size + number, height=size)
    return adder.moments()


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 40), num_images=st.integers(1, 4), seed=st.integers(0, 2**32), low=st.sampled_from([0, 250]))
def test_sums_equal_integer_arithmetic(size, num_images, seed, low):
    images = np.random.default_rng(seed).integers(low, 256, (num_images, size, size, 3), np.uint8)
    found = moments_of(images, size)
    pixels = images.reshape(-1, 3).astype(np.int64)
    assert found.num_images == num_images
    assert found.num_pixels == len(pixels)
    assert found.channel_sums.tolist() == pixels.sum(0).tolist()
    assert found.cross_products.tolist() == (pixels.T @ pixels).tolist()
    assert np.array_equal(found.image_sums, images.astype(np.uint64).sum(0))
    assert np.array_equal(found.histograms, [np.bincount(pixels[:, c], minlength=256) for c in range(3)])


def test_the_brightest_image_is_still_exact():
    size = 224
    found = moments_of([np.full((size, size, 3), 255, np.uint8)], size)
    assert found.cross_products.tolist() == [[size * size * 255**2] * 3] * 3
    assert CHUNK * 255**2 < 2**24  # why float32 suffices


def test_sums_grow_beyond_64_bits():
    one = moments_of([np.full((2, 2, 3), 255, np.uint8)], 2)
    one.cross_products[:] = 2**63
    assert (one + one).cross_products[0, 0] == 2**64


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=5), seed=st.integers(0, 2**32))
def test_any_cut_and_any_order_give_the_same_moments(cuts, seed):
    rng = np.random.default_rng(seed)
    images = [(image, number) for number, image in enumerate(rng.integers(0, 256, (12, 7, 7, 3), np.uint8))]
    whole = _labelled(images)
    random.Random(seed).shuffle(images)
    ends = [0, *sorted(cuts), 12]
    parts = [_labelled(images[start:stop]) for start, stop in itertools.pairwise(ends)]
    random.Random(seed + 1).shuffle(parts)
    assert reduce(Moments.__add__, parts, Moments.zero(7)) == whole


def _labelled(images) -> Moments:
    adder = Adder(7)
    for image, number in images:
        adder.add(image, label=number % 4, width=number, height=100 - number)
    return adder.moments()


def test_one_different_value_makes_other_moments():
    image = np.zeros((5, 5, 3), np.uint8)
    other = image.copy()
    other[2, 2, 1] = 1
    assert moments_of([image], 5) != moments_of([other], 5)
    assert moments_of([image], 5) == moments_of([image], 5)


def test_labels_and_sizes_are_counted():
    found = moments_of(np.zeros((4, 6, 6, 3), np.uint8), 6)
    assert found.labels == Counter({0: 2, 1: 1, 2: 1})
    assert found.widths == Counter({6: 1, 7: 1, 8: 1, 9: 1})
    assert found.heights == Counter({6: 4})


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_an_images_std_is_rounded_down_to_its_last_bit(size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    found = moments_of([image], size).std_sums
    with localcontext() as context:
        context.prec = 60
        for channel in range(3):
            values = [Decimal(int(value)) for value in image[:, :, channel].flat]
            mean = sum(values) / len(values)
            std = (sum((value - mean) ** 2 for value in values) / len(values)).sqrt() / 255
            assert 0 <= std * 2**STD_BITS - int(found[channel]) < Decimal(1) + Decimal("1e-20")


def test_two_values_in_equal_parts_have_a_known_std():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = [255, 51, 0]
    assert moments_of([image], 4).std_sums.tolist() == [2 ** (STD_BITS - 1), (1 << STD_BITS) // 10, 0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-12, 1.0, 1e6]), size=st.integers(1, 5))
def test_eigenvectors_equal_numpys(seed, scale, size):
    root = np.random.default_rng(seed).normal(size=(size, size)) * scale
    matrix = root @ root.T
    matrix = (matrix + matrix.T) / 2
    values, vectors = map(np.array, symmetric_eigen(matrix.tolist()))
    wanted = np.linalg.eigvalsh(matrix)[::-1]
    tolerance = 1e-13 * np.abs(wanted).max()
    assert np.allclose(values, wanted, rtol=0, atol=tolerance)
    assert np.allclose(vectors @ vectors.T, np.eye(size), rtol=0, atol=1e-13)
    assert np.allclose(matrix @ vectors.T, vectors.T * values, rtol=0, atol=10 * tolerance)
    assert all(vector[np.abs(vector).argmax()] > 0 for vector in vectors)


@pytest.mark.parametrize(
    ("matrix", "values", "vectors"),
    [
        ([[2.0, 0.0], [0.0, 3.0]], [3.0, 2.0], [[0.0, 1.0], [1.0, 0.0]]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
        ([[2.0, 1.0], [1.0, 2.0]], [3.0, 1.0], [[0.5**0.5, 0.5**0.5], [0.5**0.5, -(0.5**0.5)]]),
        ([[5e-324, 0.0], [0.0, 0.0]], [5e-324, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_eigenvectors_of_known_matrices(matrix, values, vectors):
    found_values, found_vectors = symmetric_eigen(matrix)
    assert found_values == pytest.approx(values, abs=1e-15)
    assert np.allclose(found_vectors, vectors, rtol=0, atol=1e-15)


def test_eigenvectors_of_three_equal_channels():
    values, vectors = symmetric_eigen([[0.07] * 3] * 3)
    assert values == pytest.approx([0.21, 0, 0], abs=1e-16)
    assert vectors[0] == pytest.approx([3**-0.5] * 3, abs=1e-15)


def test_sums_in_float_are_settled_before_they_could_round(monkeypatch):
    assert moments.IMAGES_IN_FLOAT * 255 < 2**24
    images = np.random.default_rng(0).integers(0, 256, (11, 5, 5, 3), np.uint8)
    wanted = moments_of(images, 5)
    monkeypatch.setattr(moments, "IMAGES_IN_FLOAT", 3)
    adder = Adder(5)
    for number, image in enumerate(images):
        adder.add(image, label=number % 3, width=5 + number, height=5)
        assert np.array_equal(adder.moments().image_sums, images[: number + 1].astype(np.uint64).sum(0))
    assert adder.moments() == wanted
