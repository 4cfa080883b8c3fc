"""Statistics: a JSON file a person reads, and an .npz beside it with the mean image and the histograms."""

import dataclasses
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import ContractError, atomic, check, read_json, write_json
from rootstock.schema.names import SHA256

QUANTILES = ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")
NEAR = 1e-9

CHANNELS = pa.DataFrameSchema(
    {
        "channel": pa.Column(str, pa.Check.isin(("red", "green", "blue"))),
        "mean": pa.Column(float, pa.Check.in_range(0, 1)),
        # a population std on [0, 1] is at most 1/2
        "std_per_pixel": pa.Column(float, pa.Check.in_range(0, 0.5)),
        "std_mean_of_images": pa.Column(float, pa.Check.in_range(0, 0.5)),
        "eigenvalue": pa.Column(float, pa.Check.ge(0)),
    },
    checks=[
        pa.Check(lambda frame: frame["eigenvalue"].is_monotonic_decreasing, error="eigenvalues that fall"),
        pa.Check(
            lambda frame: frame["std_mean_of_images"] <= frame["std_per_pixel"] + NEAR,
            error="a mean of per-image stds not above the std over all pixels",
        ),
        pa.Check(
            lambda frame: frame["std_per_pixel"] ** 2 <= frame["mean"] * (1 - frame["mean"]) + NEAR,
            error="a variance of at most mean × (1 − mean)",
        ),
    ],
    strict=True,
    ordered=True,
    name="Statistics",
)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the training split's central crops, on the [0, 1] scale, channels red, green, blue."""

    collection: str
    num_images: int
    num_pixels: int  # of the crops, each channel's
    geometry: dict[str, int]  # short_side, crop_size: pixels
    decode: dict[str, object]  # backend, max_pixels
    data_digest: str  # of the manifest's training rows and the decoder; the shards' index carries the same
    channel_mean: list[float]
    channel_std_per_pixel: list[float]  # population std over all pixels of all images
    channel_std_mean_of_images: list[float]  # mean over images of each image's population std
    covariance: list[list[float]]  # (3, 3), population, over pixels
    eigenvalues: list[float]  # of the covariance, falling
    eigenvectors: list[list[float]]  # rows, unit length; the component of largest magnitude is positive
    class_counts: list[int]  # training images, by label
    width_quantiles: dict[str, int]  # pixels, before resizing; smallest width that a fraction q does not exceed
    height_quantiles: dict[str, int]
    # The exact integers, as decimal strings (JSON readers elsewhere cut integers at 2^53): add them to merge.
    # channel_sums (3), cross_products (3, 3), std_sums (3) in units of 2^-std_bits
    sums: dict[str, object]
    image_sums: np.ndarray  # uint64 (S, S, 3)
    histograms: np.ndarray  # uint64 (3, 256)
    width_counts: np.ndarray  # int64 (k, 2): width, images of that width
    height_counts: np.ndarray  # int64 (k, 2)

    @property
    def mean_image(self) -> np.ndarray:
        """The mean image, float64 (S, S, 3) on [0, 1]."""
        return self.image_sums / (255.0 * self.num_images)


ARRAYS = ("image_sums", "histograms", "width_counts", "height_counts")
VALUES = tuple(item.name for item in dataclasses.fields(Statistics) if item.name not in ARRAYS)
SHAPES = {
    "channel_mean": (3,),
    "channel_std_per_pixel": (3,),
    "channel_std_mean_of_images": (3,),
    "covariance": (3, 3),
    "eigenvalues": (3,),
    "eigenvectors": (3, 3),
}
KEYS = {
    "geometry": {"short_side", "crop_size"},
    "decode": {"backend", "max_pixels"},
    "width_quantiles": set(QUANTILES),
    "height_quantiles": set(QUANTILES),
    "sums": {"channel_sums", "cross_products", "std_sums", "std_bits"},
}


def write(path: Path, arrays_path: Path, statistics: Statistics) -> None:
    """Write the arrays, then the JSON; equal statistics give equal bytes.

    Raises:
        ContractError: the statistics contradict themselves.
    """
    _check(statistics, path, arrays_path)
    with atomic(arrays_path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: getattr(statistics, name) for name in ARRAYS})
    write_json(path, {name: getattr(statistics, name) for name in VALUES})


def read(path: Path, arrays_path: Path) -> Statistics:
    """Read and check both files.

    Raises:
        ContractError: naming file, key, found and wanted.
    """
    value = read_json(path)
    if not isinstance(value, dict) or set(value) != set(VALUES):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: found keys {found}, wanted {sorted(VALUES)}")
    statistics = Statistics(**value, **_read_arrays(arrays_path))
    _check(statistics, path, arrays_path)
    return statistics


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a single array
        raise ContractError(f"{path} is not a whole .npz file: {error}") from None
    if set(arrays) != set(ARRAYS):
        raise ContractError(f"{path}: found arrays {sorted(arrays)}, wanted {sorted(ARRAYS)}")
    return arrays


def _check(statistics: Statistics, path: Path, arrays_path: Path) -> None:
    _check_form(statistics, path, arrays_path)
    table = {
        "channel": ["red", "green", "blue"],
        "mean": statistics.channel_mean,
        "std_per_pixel": statistics.channel_std_per_pixel,
        "std_mean_of_images": statistics.channel_std_mean_of_images,
        "eigenvalue": statistics.eigenvalues,
    }
    check(pd.DataFrame(table), CHANNELS, path)
    for key, found, wanted, tolerance in [*_within_json(statistics), *_across_files(statistics)]:
        difference = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64)).max()
        if not difference <= tolerance:
            where = arrays_path if key in ARRAYS else path
            raise ContractError(
                f"{where}: {key}: found {_short(found)}, wanted {_short(wanted)} (within {tolerance:g})"
            )
    vectors = np.array(statistics.eigenvectors)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    if (largest <= 0).any():
        raise ContractError(f"{path}: eigenvectors: found {vectors.tolist()}, wanted positive largest components")


def _check_form(statistics: Statistics, path: Path, arrays_path: Path) -> None:
    """What must hold before the numbers can be compared with each other."""
    for key, names in KEYS.items():
        value = getattr(statistics, key)
        if not isinstance(value, dict) or set(value) != names:
            raise ContractError(f"{path}: {key}: found {value!r}, wanted a mapping with keys {sorted(names)}")
    for key, shape in SHAPES.items():
        value = np.array(getattr(statistics, key), dtype=object)
        if value.shape != shape or not all(isinstance(number, float) for number in value.flat):
            raise ContractError(f"{path}: {key}: found {_short(value)}, wanted floats of shape {shape}")
    for key in ("num_images", "num_pixels"):
        value = getattr(statistics, key)
        if not isinstance(value, int) or value < 1:
            raise ContractError(f"{path}: {key}: found {value!r}, wanted an integer of at least 1")
    if not re.fullmatch(SHA256, str(statistics.data_digest)):
        raise ContractError(f"{path}: data_digest: found {statistics.data_digest!r}, wanted 64 hexadecimal digits")
    size = statistics.geometry["crop_size"]
    shapes = {"image_sums": (size, size, 3), "histograms": (3, 256)}
    for key in ARRAYS:
        array = getattr(statistics, key)
        shape = shapes.get(key, (len(array), 2))
        dtype = "uint64" if key in shapes else "int64"
        if array.shape != shape or array.dtype != dtype or array.size == 0:
            raise ContractError(
                f"{arrays_path}: {key}: found {array.dtype} {array.shape}, wanted {dtype} {shape} by {path}"
            )


def _within_json(statistics: Statistics) -> Iterator[tuple[str, object, object, float]]:
    """Yield key, value found, value wanted and tolerance."""
    size = statistics.geometry["crop_size"]
    covariance, values, vectors = (
        np.array(getattr(statistics, name)) for name in ("covariance", "eigenvalues", "eigenvectors")
    )
    yield "num_pixels", statistics.num_pixels, statistics.num_images * size * size, 0
    yield "class_counts", sum(statistics.class_counts), statistics.num_images, 0
    yield "covariance", covariance, covariance.T, 0
    yield "channel_std_per_pixel", np.square(statistics.channel_std_per_pixel), np.diag(covariance), NEAR
    yield "eigenvalues", values.sum(), np.trace(covariance), NEAR
    yield "eigenvectors", vectors @ vectors.T, np.eye(3), NEAR
    yield "eigenvectors", covariance @ vectors.T, vectors.T * values, NEAR
    sums, products = (_integers(statistics.sums[name]) for name in ("channel_sums", "cross_products"))
    num_pixels = statistics.num_pixels
    yield "channel_mean", statistics.channel_mean, sums / (255 * num_pixels), NEAR
    scatter = (num_pixels * products - np.outer(sums, sums)) / (255 * num_pixels) ** 2
    yield "covariance", covariance, scatter, NEAR
    stds = _integers(statistics.sums["std_sums"]) / (statistics.num_images << statistics.sums["std_bits"])
    yield "channel_std_mean_of_images", statistics.channel_std_mean_of_images, stds, NEAR


def _across_files(statistics: Statistics) -> Iterator[tuple[str, object, object, float]]:
    histograms = statistics.histograms.astype(object)
    levels = np.arange(256).astype(object)
    sums, products = (_integers(statistics.sums[name]) for name in ("channel_sums", "cross_products"))
    yield "histograms", histograms.sum(axis=1) - statistics.num_pixels, np.zeros(3), 0
    yield "histograms", histograms @ levels - sums, np.zeros(3), 0
    yield "histograms", histograms @ levels**2 - np.diag(products), np.zeros(3), 0
    yield "image_sums", statistics.image_sums.sum(axis=(0, 1)).astype(object) - sums, np.zeros(3), 0
    for name in ("width", "height"):
        counts = getattr(statistics, f"{name}_counts")
        yield f"{name}_counts", counts[:, 1].sum(), statistics.num_images, 0
        yield f"{name}_counts", np.diff(counts[:, 0], prepend=0) > 0, np.ones(len(counts)), 0
        reached = np.cumsum(counts[:, 1])
        places = [int(np.searchsorted(reached, math.ceil(Fraction(q) * int(reached[-1])))) for q in QUANTILES]
        quantiles = getattr(statistics, f"{name}_quantiles")
        yield f"{name}_quantiles", [quantiles[q] for q in QUANTILES], counts[places, 0], 0


def _integers(strings: object) -> np.ndarray:
    return np.vectorize(int, otypes=[object])(strings)


def _short(value: object) -> str:
    text = str(np.asarray(value).tolist())
    return text if len(text) <= 200 else text[:200] + " …"
