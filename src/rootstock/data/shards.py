"""WebDataset shards with an index: written in parallel, the same bytes for any number of workers.

A folder holds `{train,val,test}-%06d.tar` and, once all of them are whole, `index.parquet` with its sum.
Shards are written beside the folder and moved into it when the last one is whole; a job that was killed goes on there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow
import pyarrow.compute

from rootstock.data import shard_note
from rootstock.data.digest import DataDigest
from rootstock.data.parallel import ordered_map
from rootstock.data.shard_check import verify_shards
from rootstock.data.shard_plan import PlannedShard, pack, plan
from rootstock.data.shard_set import (
    INDEX_NAME,
    SUM_NAME,
    ShardError,
    ShardSet,
    check_keys,
    index_sum,
    read_index_facts,
)
from rootstock.data.shard_writer import ShardTask, WrittenShard, write_shard
from rootstock.schema.contract import atomic, fsync_folder, iterate_table, read_facts, write_table
from rootstock.schema.manifest import MANIFEST
from rootstock.schema.names import SPLITS
from rootstock.schema.shards import INDEX, INDEX_ARROW

if TYPE_CHECKING:
    from webdataset import WebDataset

INDEX_ROWS = 4096  # in a piece of the index at least: checking costs more by the piece than by the row

__all__ = ["ShardError", "ShardSet", "as_webdataset", "verify_shards", "write"]


def write(
    manifest: Path,
    *,
    locate: Callable[[str], Path],
    folder: Path,
    short_side: int | None,
    quality: int,
    max_shard_bytes: int,
    seed: int,
    workers: int | Executor,
) -> None:
    """Write a manifest's images as shards, the same bytes for any number of workers.

    A job that ended early, however it ended, leaves its whole shards in `.<folder's name>.unfinished` beside the
    folder; the next one with the same images, settings and code keeps them.

    Args:
        manifest: a table of `schema.manifest`.
        locate: where the archive of this name lies.
        folder: where the shards go; other shards in it are removed.
        short_side: images with a longer short side are shrunk to it and encoded as JPEG (4:2:0); all others, and all
            when None, keep their bytes.
        quality: of the JPEG encoder, 1 to 100.
        max_shard_bytes: no shard is planned larger; exact for raw bytes, an estimate from above where images shrink.
        seed: of the order of samples within a split.
        workers: processes, or an executor.

    Raises:
        ValueError: an image's bytes changed since the manifest was made, or a sample does not fit a shard or a tar.
    """
    facts = read_facts(manifest)
    digest = DataDigest(decode=facts["decode"])
    samples = pack(digest.update(frame) for frame in iterate_table(manifest, MANIFEST))
    check_keys(samples["key"], manifest)
    planned = plan(samples, short_side=short_side, max_shard_bytes=max_shard_bytes, seed=seed)

    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shard_note.keep(unfinished, {shard.name for shard in planned})
    tasks = (
        _task(
            unfinished / shard.name,
            samples.take(pyarrow.array(shard.rows)),
            locate=locate,
            decode=facts["decode"],
            short_side=short_side,
            quality=quality,
        )
        for shard in planned
    )
    ahead = 1 if workers == 1 else 4 if isinstance(workers, Executor) else 2 * workers
    preload = ["rootstock.data.shard_writer", *(["torch"] if short_side is not None else [])]
    written = list(ordered_map(write_shard, tasks, workers=workers, ahead=ahead, preload=preload))
    write_table(
        unfinished / INDEX_NAME,
        _index(samples, planned, written),
        INDEX,
        INDEX_ARROW,
        {
            "collection": facts["collection"],
            "class_names": facts["class_names"],
            "data_digest": digest.hexdigest(),
            "decode": facts["decode"],
            "quality": quality,
            "short_side": short_side,
            "shards": {shard.name: shard.facts for shard in written},
        },
    )
    with atomic(unfinished / SUM_NAME) as temporary:
        temporary.write_bytes(index_sum(unfinished / INDEX_NAME))
    _publish(unfinished, folder, [*(shard.name for shard in planned), SUM_NAME, INDEX_NAME])


def _publish(unfinished: Path, folder: Path, names: list[str]) -> None:
    """Move whole files to their place, the index last: without it there are no shards."""
    for name in names[:-1]:
        os.replace(unfinished / name, folder / name)
    fsync_folder(folder)
    os.replace(unfinished / names[-1], folder / names[-1])
    fsync_folder(folder)
    shutil.rmtree(unfinished)


def _task(path: Path, samples: pyarrow.Table, *, locate: Callable[[str], Path], **settings) -> ShardTask:
    """What a worker is sent, and no more: of a folder each image is an archive, so all their names are many."""
    names = samples["archive"].cast(pyarrow.string())  # a dictionary is sent whole, whatever rows were taken
    samples = samples.set_column(samples.schema.get_field_index("archive"), "archive", names)
    archives = {name: locate(name) for name in pyarrow.compute.unique(names).to_pylist()}
    return ShardTask(path=path, samples=samples, archives=archives, **settings)


def _index(samples: pyarrow.Table, planned: list[PlannedShard], written: list[WrittenShard]) -> Iterator[pd.DataFrame]:
    frames: list[pd.DataFrame] = []
    for shard, result in zip(planned, written, strict=True):
        rows = samples.select(["key", "label", "gate"]).take(pyarrow.array(shard.rows))
        table = pyarrow.table(
            [*rows.columns, *result.images.columns], names=[*rows.column_names, *result.images.column_names]
        )
        frames.append(table.to_pandas().assign(split=shard.split, shard=shard.name)[INDEX_ARROW.names])
        if sum(map(len, frames)) >= INDEX_ROWS:
            yield pd.concat(frames, ignore_index=True)
            frames = []
    if frames:
        yield pd.concat(frames, ignore_index=True)


def _clear(folder: Path) -> None:
    """Remove what an earlier run left: an index without its shards, or shards without theirs, would be believed."""
    shards = [f"{split}-{'[0-9]' * 6}.tar" for split in SPLITS]
    for pattern in [INDEX_NAME, SUM_NAME, *shards]:
        for path in folder.glob(pattern):
            path.unlink()


def as_webdataset(folder: Path, *, split: str) -> "WebDataset":
    """Hand a split's shards to the webdataset library, in their order and unshuffled.

    Samples have `__key__`, `cls` (the label in ASCII) and `jpg`, `png` or `webp` (the bytes).

    Raises:
        ShardError: the split has no shards.
    """
    import webdataset  # here only: importing it costs as much as the rest of this module

    names = sorted(name for name in read_index_facts(folder / INDEX_NAME)["shards"] if name.startswith(f"{split}-"))
    if not names:
        raise ShardError(f"{folder}: found no shards of split {split!r}")
    return webdataset.WebDataset([str(folder / name) for name in names], shardshuffle=False)
