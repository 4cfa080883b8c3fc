"""What an image looks like in 200 bytes: near-identical images are found by it, whatever their file, size or quality.

A hash of 64 bits finds candidates (`data.near_pairs`); a thumbnail of 8 × 8 colours decides: 10^6 images make 5 × 10^11
pairs, and a hash alone raises an alarm on one in 10^6 of them. Everything is integers, the same on every machine.
"""

from typing import NamedTuple

import cv2
import numpy as np

GRID = 32  # cells a side; a cell is the mean of its pixels
# Of an image with more pixels a side every second, third … is enough; of one with fewer, pixels are cut into parts, so
# that cells end within an eighth of a cell of where they should: mirrored copies depend on it.
SAMPLED_SIDE = 256
NUM_FREQUENCIES = 9  # cosines a side, of which the 64 lowest by the sum of both frequencies, without the mean, are used
SIDE = 8  # of the thumbnail
THUMBNAIL_BYTES = SIDE * SIDE * 3
MIN_CORRELATION = 0.95
MAX_COLOUR_SHIFT = 48  # grey levels between the mean colours: brightness changes pass, other colours do not
_FREQUENCIES = sorted(
    ((row, column) for row in range(NUM_FREQUENCIES) for column in range(NUM_FREQUENCIES) if row + column),
    key=lambda place: (sum(place), place[0]),
)[:64]
_ROWS, _COLUMNS = (np.array(places) for places in zip(*_FREQUENCIES, strict=True))
# cosines × 2^12, rounded: none lies so near a half that a machine could round it otherwise
_COSINES = np.round(
    4096 * np.cos(np.pi * np.outer(np.arange(NUM_FREQUENCIES), 2 * np.arange(GRID) + 1) / (2 * GRID))
).astype(np.int64)
_PLACES = np.uint64(1) << np.arange(64, dtype=np.uint64)
# Mirroring left to right negates the cosines of odd horizontal frequency: a mirrored image has the hash ^ MIRROR.
MIRROR = int(_PLACES[_COLUMNS % 2 == 1].sum())
_GREY = np.array([77, 150, 29])  # / 256: luma


class Likeness(NamedTuple):
    """An image's looks."""

    hash: int  # 64 bits: signs of the lowest frequencies of its grey values
    thumbnail: bytes  # uint8 (8, 8, 3)


def likeness(image_HWC: np.ndarray) -> Likeness:
    """Return an image's looks.

    Source: the DCT hash of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), with
        signs in place of the median, so that mirroring is an exclusive or.

    Args:
        image_HWC: uint8 (H, W, 3) RGB.
    """
    cells_HWC = _cells(image_HWC)
    frequencies = _COSINES @ (cells_HWC @ _GREY) @ _COSINES.T
    blocks = cells_HWC.reshape(SIDE, GRID // SIDE, SIDE, GRID // SIDE, 3).sum(axis=(1, 3))
    thumbnail = blocks // (16 * (GRID // SIDE) ** 2)
    return Likeness(int(_PLACES[frequencies[_ROWS, _COLUMNS] > 0].sum()), thumbnail.astype(np.uint8).tobytes())


def _cells(image_HWC: np.ndarray) -> np.ndarray:
    """Return the mean of each cell in sixteenths, int64 (32, 32, 3)."""
    step = max(1, min(image_HWC.shape[:2]) // SAMPLED_SIDE)
    # sums of a huge image wrap around in 32 bits; a cell's own sum, the difference of four, is right all the same
    corners = cv2.integral(np.ascontiguousarray(image_HWC[::step, ::step])).view(np.uint32)
    sides = []
    for axis in (0, 1):
        num_parts, ends = _ends(corners.shape[axis] - 1)
        whole, rest = np.divmod(ends, num_parts)
        sides.append(np.diff(ends))
        before = corners.take(whole, axis)
        if num_parts == 1:
            corners = before
            continue
        after = corners.take(np.minimum(whole + 1, corners.shape[axis] - 1), axis)
        rest = rest.astype(np.uint32).reshape(-1, *[1] * (2 - axis))
        corners = before * (np.uint32(num_parts) - rest) + after * rest
    sums = np.diff(np.diff(corners, axis=0), axis=1).astype(np.int64)
    return 16 * sums // np.outer(*sides)[..., None]


def _ends(num_pixels: int) -> tuple[int, np.ndarray]:
    """Return into how many parts a pixel is cut, and where the cells begin and end, in parts."""
    num_parts = -(-SAMPLED_SIDE // num_pixels)
    return num_parts, np.arange(GRID + 1) * num_pixels * num_parts // GRID


def alike(first: np.ndarray, second: np.ndarray, *, mirrored: np.ndarray) -> np.ndarray:
    """Tell which pairs of thumbnails show the same picture.

    Args:
        first, second: uint8 (n, THUMBNAIL_BYTES).
        mirrored: bool (n,), whether the second is to be mirrored.

    Returns:
        bool (n,): correlated by `MIN_CORRELATION` at least, and of nearly the same mean colour.
    """
    first, second = (side.reshape(-1, SIDE, SIDE, 3).astype(np.int64) for side in (first, second))
    second = np.where(mirrored[:, None, None, None], second[:, :, ::-1], second)
    shift = np.abs(first.sum(axis=(1, 2)) - second.sum(axis=(1, 2))).max(axis=1)
    products = {
        name: THUMBNAIL_BYTES * (one * other).sum(axis=(1, 2, 3)) - one.sum(axis=(1, 2, 3)) * other.sum(axis=(1, 2, 3))
        for name, one, other in (("both", first, second), ("first", first, first), ("second", second, second))
    }
    bound = MIN_CORRELATION * np.sqrt(products["first"].astype(float) * products["second"])
    return (products["both"] >= bound) & (shift <= MAX_COLOUR_SHIFT * SIDE * SIDE)
