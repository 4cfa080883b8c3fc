"""Which sample goes to which shard, decided from the manifest before a byte is read."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute

from rootstock import rng
from rootstock.data.tar_writer import archive_bytes, member_bytes
from rootstock.schema.manifest import MANIFEST_ARROW
from rootstock.schema.names import SPLITS

# What a pixel of a shrunk JPEG is taken to need, for the plan only: photographs take a third of it at quality 90.
BYTES_PER_PIXEL = 1.0
_SMALL = ("split", "archive", "format")  # few different values: kept as numbers into a dictionary


class PlannedShard(NamedTuple):
    """A shard's split and name, and its samples."""

    split: str
    name: str
    rows: np.ndarray  # int64, rows of the manifest in the shard's order


def pack(frames: Iterable[pd.DataFrame]) -> pyarrow.Table:
    """Pack a manifest's rows tightly: 10^6 of them take about 150 MB, as data frames five times as much."""
    fields = [
        pyarrow.field(field.name, pyarrow.dictionary(pyarrow.int32(), field.type)) if field.name in _SMALL else field
        for field in MANIFEST_ARROW
    ]
    tables = [pyarrow.Table.from_pandas(frame, schema=pyarrow.schema(fields), preserve_index=False) for frame in frames]
    return pyarrow.concat_tables(tables).unify_dictionaries().combine_chunks()


def plan(samples: pyarrow.Table, *, short_side: int | None, max_shard_bytes: int, seed: int) -> list[PlannedShard]:
    """Shuffle each split and cut it into shards of nearly equal size.

    Args:
        samples: the manifest's rows.
        short_side: pixels, or None for raw bytes. With it, sizes are estimates (see `BYTES_PER_PIXEL`).
        max_shard_bytes: no shard is planned larger.
        seed: of the order; every shard is a random mix of its split's classes.

    Raises:
        ValueError: a single sample is larger than `max_shard_bytes`, naming it.
    """
    sizes = _tar_bytes(samples, short_side)
    largest = int(np.argmax(sizes)) if len(sizes) else 0
    if len(sizes) and archive_bytes(int(sizes[largest])) > max_shard_bytes:
        raise ValueError(
            f"max_shard_bytes: found {max_shard_bytes}, wanted at least {archive_bytes(int(sizes[largest]))}, "
            f"which the sample {samples['key'][largest].as_py()} alone takes"
        )
    shards = []
    splits = samples["split"].cast(pyarrow.string())
    for split in SPLITS:
        rows = np.flatnonzero(pyarrow.compute.equal(splits, split).to_numpy())
        rows = rows[rng.stream("shards", seed, split).permutation(len(rows))]
        cuts = _cuts(sizes[rows], max_shard_bytes)
        parts = np.split(rows, cuts) if len(rows) else []
        shards += [PlannedShard(split, f"{split}-{number:06d}.tar", part) for number, part in enumerate(parts)]
    return shards


def _tar_bytes(samples: pyarrow.Table, short_side: int | None) -> np.ndarray:
    """Return the bytes each sample takes in a tar: the image's member and the label's."""
    num_bytes = samples["num_bytes"].to_numpy().astype(np.int64)
    if short_side is not None:
        width, height = (samples[name].to_numpy().astype(np.float64) for name in ("width", "height"))
        short = np.minimum(width, height)
        pixels = np.ceil(width * height * (short_side / short) ** 2)
        num_bytes = np.where(short > short_side, (pixels * BYTES_PER_PIXEL).astype(np.int64), num_bytes)
    return member_bytes(num_bytes) + member_bytes(1)


def _cuts(sizes: np.ndarray, max_shard_bytes: int) -> np.ndarray:
    """Return where to cut, so that shards are as few as the bound allows and of nearly equal size."""
    if len(sizes) == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(sizes)
    num_shards = max(1, -(-int(ends[-1]) // max_shard_bytes))
    while True:
        cuts = np.searchsorted(ends, np.arange(1, num_shards) * (ends[-1] / num_shards), side="right")
        cuts = np.unique(cuts[(cuts > 0) & (cuts < len(sizes))])
        totals = np.add.reduceat(sizes, np.concatenate([[0], cuts]))
        if archive_bytes(int(totals.max())) <= max_shard_bytes:
            return cuts
        num_shards += 1
