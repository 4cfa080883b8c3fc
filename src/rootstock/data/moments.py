"""Exact sums over images: integers only, so merging is addition, and any order and any cut give the same bits.

HWC: an image, rows × columns × channels (red, green, blue); the values are uint8.
"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from rootstock.data import decode
from rootstock.data.archives import pread

# The std of one image is irrational as a rule. Rounded down to a multiple of 2^-48 it is an integer that can be summed;
# a mean of such stds is at most 2^-48 (4e-15) too small.
STD_BITS = 48
# 256 products of two uint8 sum to at most 16,646,400 < 2^24: exact in float32, in whatever order a BLAS adds them.
CHUNK = 256
# As many uint8 sum to at most 16,711,680 < 2^24: exact in float32, too.
IMAGES_IN_FLOAT = 65_536


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the central crops of some images, and counts of their labels and original sizes."""

    num_images: int
    channel_sums: np.ndarray  # object (3,) of int: of values
    cross_products: np.ndarray  # object (3, 3) of int: of products of two channels' values
    std_sums: np.ndarray  # object (3,) of int: of each image's population std on [0, 1], in units of 2^-STD_BITS
    image_sums: np.ndarray  # uint64 (S, S, 3): of values, at each place
    histograms: np.ndarray  # uint64 (3, 256): of values, for each channel
    labels: Counter[int]
    widths: Counter[int]  # pixels, before resizing
    heights: Counter[int]

    @classmethod
    def zero(cls, crop_size: int) -> "Moments":
        """Return the sums over no images."""
        return cls(
            num_images=0,
            channel_sums=np.zeros(3, object),
            cross_products=np.zeros((3, 3), object),
            std_sums=np.zeros(3, object),
            image_sums=np.zeros((crop_size, crop_size, 3), np.uint64),
            histograms=np.zeros((3, 256), np.uint64),
            labels=Counter(),
            widths=Counter(),
            heights=Counter(),
        )

    def __add__(self, other: "Moments") -> "Moments":
        assert self.image_sums.shape == other.image_sums.shape, "moments of different crops"
        return Moments(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moments) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__
        )

    __hash__ = None  # compared by value, changed by nobody, but too large to hash

    @property
    def num_pixels(self) -> int:
        """Pixels counted, the same for each channel."""
        return self.num_images * self.image_sums.shape[0] * self.image_sums.shape[1]


class Image(NamedTuple):
    """A row of the manifest, as far as it matters here."""

    key: str
    label: int
    archive: Path
    offset: int
    num_bytes: int
    sha256: str
    width: int
    height: int


class ChunkOfImages(NamedTuple):
    """What one worker measures at a time."""

    images: list[Image]
    decode: dict[str, object]
    short_side: int
    crop_size: int

    def __repr__(self) -> str:
        return f"{len(self.images)} images from {self.images[0].key}"


def measure_chunk(chunk: ChunkOfImages) -> Moments:
    """Read, decode, resize and crop a chunk's images and sum them.

    Raises:
        ValueError: an image's bytes are not those the manifest was made from, naming archive and key.
    """
    adder = Adder(chunk.crop_size)
    for image in chunk.images:
        image_HWC = _read(image, chunk.decode)
        resized_HWC = decode.resize_short(image_HWC, short_side=chunk.short_side)
        adder.add(
            decode.center_crop(resized_HWC, size=chunk.crop_size),
            label=image.label,
            width=image.width,
            height=image.height,
        )
    return adder.moments()


def _read(image: Image, settings: dict[str, object]) -> np.ndarray:
    data = pread(image.archive, image.offset, image.num_bytes)
    found = hashlib.sha256(data).hexdigest()
    if found != image.sha256:
        raise ValueError(
            f"{image.archive}: {image.key}: found bytes of sha256 {found}, wanted {image.sha256}; "
            "the archive changed after the manifest was made"
        )
    try:
        return decode.decode(data, **settings).image_HWC
    except decode.ImageError as error:
        raise ValueError(f"{image.archive}: {image.key}: {error}") from None


class Adder:
    """Sums images one by one, in buffers of its own; for images of at most 2^24 pixels."""

    def __init__(self, crop_size: int):
        import torch  # here, not above: readers of moments that add nothing start a second sooner

        self._bmm = torch.bmm
        self._size = crop_size
        num_pixels = crop_size * crop_size
        num_chunks = -(-num_pixels // CHUNK)
        # red, green, blue and a plane of ones, with which sums come out of the same products; the padding stays zero
        self._planes = np.zeros((4, num_chunks * CHUNK), np.float32)
        self._planes[3, :num_pixels] = 1
        self._pixels = self._planes[:3, :num_pixels].reshape(3, crop_size, crop_size)
        self._chunks = torch.from_numpy(self._planes.reshape(4, num_chunks, CHUNK)).permute(1, 0, 2)
        self._channels = [np.empty((crop_size, crop_size), np.uint8) for _ in range(3)]
        self._products = np.zeros((4, 4), object)
        self._std_sums = np.zeros(3, object)
        self._image_sums = np.zeros((crop_size, crop_size, 3), np.uint64)
        self._newest = np.zeros((crop_size, crop_size, 3), np.float32)  # sums of the images that are not yet in those
        self._num_newest = 0
        self._histograms = np.zeros((3, 256), np.uint64)
        self._labels: Counter[int] = Counter()
        self._widths: Counter[int] = Counter()
        self._heights: Counter[int] = Counter()

    def add(self, image_HWC: np.ndarray, *, label: int, width: int, height: int) -> None:
        """Take in a crop, uint8 (S, S, 3), and the label and size of the image it was cut from."""
        assert image_HWC.shape == (self._size, self._size, 3), image_HWC.shape
        assert image_HWC.dtype == np.uint8, image_HWC.dtype
        image_HWC = np.ascontiguousarray(image_HWC)
        cv2.split(image_HWC, self._channels)
        for plane, values in zip(self._pixels, self._channels, strict=True):
            plane[:] = values
        by_chunk = self._bmm(self._chunks, self._chunks.transpose(1, 2)).numpy()
        products = by_chunk.sum(axis=0, dtype=np.float64).astype(np.int64)  # below 2^53: exact
        self._products += products.astype(object)
        self._std_sums += _stds(products)
        cv2.accumulate(image_HWC, self._newest)
        self._num_newest += 1
        if self._num_newest == IMAGES_IN_FLOAT:
            self._settle()
        for histogram, values in zip(self._histograms, self._channels, strict=True):
            counts = cv2.calcHist([values], [0], None, [256], [0, 256])  # float32, exact below 2^24
            histogram += counts[:, 0].astype(np.uint64)
        self._labels[label] += 1
        self._widths[width] += 1
        self._heights[height] += 1

    def moments(self) -> Moments:
        """Return the sums so far."""
        self._settle()
        return Moments(
            num_images=self._labels.total(),
            channel_sums=self._products[3, :3].copy(),
            cross_products=self._products[:3, :3].copy(),
            std_sums=self._std_sums.copy(),
            image_sums=self._image_sums.copy(),
            histograms=self._histograms.copy(),
            labels=self._labels.copy(),
            widths=self._widths.copy(),
            heights=self._heights.copy(),
        )

    def _settle(self) -> None:
        self._image_sums += self._newest.astype(np.uint64)
        self._newest[:] = 0
        self._num_newest = 0


def _stds(products: np.ndarray) -> np.ndarray:
    """Return the floor of 2^STD_BITS times each channel's population std on [0, 1], as Python integers.

    std = √(n·Σx² − (Σx)²) / (255·n), and floor(√a / b) = isqrt(a // b²) for integers: no rounding is left to a machine.
    """
    num_pixels = int(products[3, 3])
    stds = []
    for channel in range(3):
        spread = num_pixels * int(products[channel, channel]) - int(products[3, channel]) ** 2
        stds.append(math.isqrt((spread << 2 * STD_BITS) // (255 * num_pixels) ** 2))
    return np.array(stds, object)
