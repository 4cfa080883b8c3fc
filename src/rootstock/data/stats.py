"""A collection's statistics, for preprocessing and colour augmentation: exact sums, then one division.

Only the training split is looked at. Each image is resized to a short side and cut to its central square.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from rootstock.data.digest import DataDigest
from rootstock.data.eigen import symmetric_eigen
from rootstock.data.moments import STD_BITS, ChunkOfImages, Image, Moments, measure_chunk
from rootstock.data.parallel import ordered_map
from rootstock.schema.contract import iterate_table, read_facts
from rootstock.schema.manifest import MANIFEST
from rootstock.schema.stats import QUANTILES, Statistics

IMAGES_PER_CHUNK = 256
PRELOAD = ("rootstock.data.moments", "torch")
_COLUMNS = ["key", "label", "archive", "offset", "num_bytes", "sha256", "width", "height"]


def measure(
    manifest: Path,
    *,
    locate: Callable[[str], Path],
    short_side: int,
    crop_size: int,
    workers: int | Executor,
    chunk_size: int = IMAGES_PER_CHUNK,
) -> Statistics:
    """Measure a manifest's training images; the same bits for any number of workers, any chunks and any order.

    Args:
        manifest: a table of `schema.manifest`.
        locate: where the archive of this name lies.
        short_side: pixels, of the resized image.
        crop_size: pixels, of the central square, <= short_side.
        workers: processes, or an executor.
        chunk_size: images a worker measures at a time.

    Raises:
        ValueError: no training image, or an image's bytes changed since the manifest was made.
    """
    assert crop_size <= short_side, (crop_size, short_side)
    facts = read_facts(manifest)
    digest = DataDigest(decode=facts["decode"])
    train = (frame[frame["split"] == "train"] for frame in map(digest.update, iterate_table(manifest, MANIFEST)))
    chunks = (
        ChunkOfImages(images, facts["decode"], short_side, crop_size) for images in _images(train, locate, chunk_size)
    )
    ahead = 1 if workers == 1 else 4 if isinstance(workers, Executor) else 2 * workers
    total = Moments.zero(crop_size)
    with closing(ordered_map(measure_chunk, chunks, workers=workers, ahead=ahead, preload=PRELOAD)) as measured:
        for moments in measured:
            total += moments
    if total.num_images == 0:
        raise ValueError(f"{manifest}: found no training image, wanted at least one")
    return derive(
        total,
        collection=facts["collection"],
        num_classes=len(facts["class_names"]),
        geometry={"short_side": short_side, "crop_size": crop_size},
        decode=facts["decode"],
        data_digest=digest.hexdigest(),
    )


def _images(frames: Iterator[pd.DataFrame], locate: Callable[[str], Path], chunk_size: int) -> Iterator[list[Image]]:
    paths: dict[str, Path] = {}
    waiting: list[Image] = []
    for frame in frames:
        for row in frame[_COLUMNS].itertuples(index=False, name=None):
            image = Image(*row)
            path = paths.get(image.archive) or paths.setdefault(image.archive, locate(image.archive))
            waiting.append(image._replace(archive=path))
            if len(waiting) == chunk_size:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def derive(
    moments: Moments,
    *,
    collection: str,
    num_classes: int,
    geometry: dict[str, int],
    decode: dict[str, object],
    data_digest: str,
) -> Statistics:
    """Turn sums into means, stds, covariance and principal components, on the [0, 1] scale.

    Each number is the exact quotient of integers, rounded once; eigenvectors come from IEEE arithmetic alone.
    """
    num_pixels, sums, products = moments.num_pixels, moments.channel_sums, moments.cross_products
    covariance = [
        [
            float(Fraction(num_pixels * products[row, column] - sums[row] * sums[column], (255 * num_pixels) ** 2))
            for column in range(3)
        ]
        for row in range(3)
    ]
    eigenvalues, eigenvectors = symmetric_eigen(covariance)
    return Statistics(
        collection=collection,
        num_images=moments.num_images,
        num_pixels=num_pixels,
        geometry=geometry,
        decode=decode,
        data_digest=data_digest,
        channel_mean=[float(Fraction(total, 255 * num_pixels)) for total in sums],
        channel_std_per_pixel=[math.sqrt(covariance[channel][channel]) for channel in range(3)],
        channel_std_mean_of_images=[float(Fraction(s, moments.num_images << STD_BITS)) for s in moments.std_sums],
        covariance=covariance,
        eigenvalues=[max(value, 0.0) for value in eigenvalues],  # of a singular matrix, rounding can leave −1e-18
        eigenvectors=eigenvectors,
        class_counts=[moments.labels[label] for label in range(num_classes)],
        width_quantiles=_quantiles(moments.widths),
        height_quantiles=_quantiles(moments.heights),
        sums={
            "channel_sums": [str(total) for total in sums],
            "cross_products": [[str(total) for total in row] for row in products],
            "std_sums": [str(total) for total in moments.std_sums],
            "std_bits": STD_BITS,
        },
        image_sums=moments.image_sums,
        histograms=moments.histograms,
        width_counts=_pairs(moments.widths),
        height_counts=_pairs(moments.heights),
    )


def _quantiles(counts: Counter[int]) -> dict[str, int]:
    """Return for each q the smallest value that at least the fraction q of the images does not exceed."""
    ordered = sorted(counts.items())
    quantiles = {}
    for q in QUANTILES:
        wanted, reached = Fraction(q) * counts.total(), 0
        for value, count in ordered:
            reached += count
            if reached >= wanted:
                quantiles[q] = value
                break
    return quantiles


def _pairs(counts: Counter[int]) -> np.ndarray:
    return np.array(sorted(counts.items()), np.int64).reshape(-1, 2)
