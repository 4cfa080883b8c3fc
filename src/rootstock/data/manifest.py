"""From a collection's records to the manifest: every image is read and decoded once; what is refused is listed.

Nothing is skipped silently: a refused image is a row of the rejects table with its reason, and more of them than
`max_reject_fraction` are a failure. Images that are there twice, in two splits or under two labels, are a table too.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from rootstock import rng
from rootstock.data import decode
from rootstock.data.archives import pread
from rootstock.data.duplicates import Catalogue, Found
from rootstock.data.likeness import likeness
from rootstock.data.parallel import ordered_map
from rootstock.data.sources.record import Record
from rootstock.schema.contract import TableWriter, iterate_table, write_table
from rootstock.schema.duplicates import DUPLICATES, DUPLICATES_ARROW
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW, REJECTS, REJECTS_ARROW
from rootstock.schema.names import SPLITS

AHEAD = 16  # chunks in flight
PRELOAD = (__name__,)
NUM_REASONS = 5  # of refused images, named in the error when they are too many


class ManifestError(ValueError):
    """A collection that cannot be trained on; the message names what is wrong with it."""


class Work(NamedTuple):
    """A chunk of records for one worker."""

    records: list[Record]
    paths: list[Path]
    backend: str
    max_pixels: int


def examine(work: Work) -> list[dict]:
    """Read and decode a chunk's images: one row each, with either the image's facts or a `reason`."""
    return [
        _examine_one(record, path, backend=work.backend, max_pixels=work.max_pixels)
        for record, path in zip(work.records, work.paths, strict=True)
    ]


def _examine_one(record: Record, path: Path, *, backend: str, max_pixels: int) -> dict:
    row = record._asdict()
    data = pread(path, record.offset, record.num_bytes)
    row["sha256"] = hashlib.sha256(data).hexdigest()
    try:
        image_HWC, row["format"] = decode.decode(data, backend=backend, max_pixels=max_pixels)
    except decode.ImageError as error:
        row["reason"] = str(error)
        return row
    row["height"], row["width"] = image_HWC.shape[:2]
    row["likeness"] = likeness(image_HWC)
    return row


def build(
    records: Iterable[Record],
    *,
    locate: Callable[[str], Path],
    class_names: list[str],
    collection: str,
    backend: str,
    max_pixels: int,
    split_seed: int,
    gate_fraction: float,
    max_reject_fraction: float,
    drop_duplicates: Literal["none", "identical"],
    near_radius: int,
    manifest: Path,
    rejects: Path,
    duplicates: Path,
    workers: int | Executor,
    chunk_size: int = 256,
) -> dict:
    """Write the manifest, the rejects and the duplicates of a collection; memory grows by 0.3 kB an image.

    Args:
        records: in a deterministic order, which becomes the manifest's.
        locate: an archive's path here.
        gate_fraction: of val, chosen by a hash of the key, so that it stays when images arrive.
        max_reject_fraction: of all images; dropped duplicates do not count.
        drop_duplicates: `identical` rejects train images whose bytes are also in val or test, or carry two labels.
        near_radius: bits of 64 by which the hashes of images that look alike may differ.
        workers: a number of processes, or an executor.

    Returns:
        The manifest's facts: counts by split, rejects, decoder, class names.

    Raises:
        ManifestError: a doubled key, a class without a training image, too many refused images.
    """
    work = (
        Work(chunk, [locate(record.archive) for record in chunk], backend, max_pixels)
        for chunk in _chunks(records, chunk_size)
    )
    tally, catalogue = _Tally(class_names), Catalogue()
    examined = manifest.with_name(f"{manifest.name}.examined")  # which images are dropped is known when all were seen
    try:
        with TableWriter(manifest, MANIFEST, MANIFEST_ARROW) as accepted:
            with TableWriter(rejects, REJECTS, REJECTS_ARROW) as refused:
                with TableWriter(examined, MANIFEST, MANIFEST_ARROW) as good:
                    for rows in _examined(work, workers):
                        _sort_out(rows, good, refused, tally, catalogue, split_seed, gate_fraction)
                found = catalogue.find(near_radius=near_radius, drop_identical=drop_duplicates == "identical")
                named = _leave_out(examined, found, accepted, refused, class_names)
                tally.drop(named[row] for row in found.dropped)
                num_rejects = tally.num_rejects + len(found.dropped)
                refused.facts = {"collection": collection, "num_rejects": num_rejects}
            # from here on the rejects can be read, also when one of these checks fails and no manifest appears
            tally.check_rejects(max_reject_fraction, rejects)
            tally.check_classes()
            facts = {"collection": collection, "near_radius": near_radius, "num_dropped": len(found.dropped)}
            facts |= {"num_images": len(catalogue), "same_place": found.same_place}
            write_table(duplicates, _twins(found, named), DUPLICATES, DUPLICATES_ARROW, facts)
            accepted.facts = {
                "collection": collection,
                "class_names": class_names,
                "decode": {"backend": backend, "max_pixels": max_pixels},
                "num_images": tally.num_by_split,
                "num_rejects": num_rejects,
            }
    finally:
        examined.unlink(missing_ok=True)
    return accepted.facts


def _examined(work: Iterable[Work], workers: int | Executor) -> Iterator[list[dict]]:
    with closing(ordered_map(examine, work, workers=workers, ahead=AHEAD, preload=PRELOAD)) as examined:
        yield from examined  # closing: Ctrl-C here ends the workers too


def _sort_out(
    rows: list[dict],
    accepted: TableWriter,
    refused: TableWriter,
    tally: "_Tally",
    catalogue: Catalogue,
    split_seed: int,
    gate_fraction: float,
) -> None:
    """Write a chunk's rows to the table where they belong."""
    good, bad = tally.judge(rows)
    for row in good:
        is_val = row["split"] == "val"
        row["gate"] = is_val and is_gate(row["key"], seed=split_seed, fraction=gate_fraction)
        catalogue.add(sha256=row["sha256"], likeness=row["likeness"], split=row["split"], label=row["label"])
    accepted.write(_frame(good, MANIFEST))
    refused.write(_frame(bad, REJECTS))


def _leave_out(
    examined: Path, found: Found, accepted: TableWriter, refused: TableWriter, class_names: list[str]
) -> dict[int, dict]:
    """Write the examined rows but for those to be dropped, which are refused; return all rows that were named."""
    wanted = {*found.dropped, *found.dropped.values(), *(row for twin in found.twins for row in (twin.row, twin.other))}
    named: dict[int, dict] = {}
    for frame in iterate_table(examined, MANIFEST):
        rows = sorted(wanted.intersection(range(frame.index.start, frame.index.stop)))
        named |= zip(rows, frame.loc[rows].to_dict("records"), strict=True)
        accepted.write(frame.drop(index=[row for row in rows if row in found.dropped]))
    dropped = []
    for row, other in found.dropped.items():
        twin = named[other]
        place = f"{twin['split']}, class {class_names[twin['label']]!r}"
        dropped.append(named[row] | {"reason": f"duplicate: the same bytes as {twin['key']} ({place})"})
    refused.write(_frame(dropped, REJECTS))
    return named


def _twins(found: Found, named: dict[int, dict]) -> Iterator[pd.DataFrame]:
    rows = []
    for twin in found.twins:
        columns = ("key", "split", "label")
        row = {name: named[twin.row][name] for name in columns}
        row |= {f"other_{name}": named[twin.other][name] for name in columns}
        rows.append(row | {"kind": twin.kind, "distance": twin.distance, "mirrored": twin.mirrored})
    rows.sort(key=lambda row: (row["kind"], row["distance"], row["key"]))  # "identical" < "near"
    yield _frame(rows, DUPLICATES)


def is_gate(key: str, *, seed: int, fraction: float) -> bool:
    """Tell whether a val image is kept for promotion: a function of its key alone, so new images move no old one."""
    return rng.key("gate", seed, key) < fraction * 2**64


def _chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    records = iter(records)
    while chunk := list(itertools.islice(records, size)):
        yield chunk


def _frame(rows: list[dict], schema) -> pd.DataFrame:
    columns = {
        name: pd.Series([row[name] for row in rows], dtype="str" if str(column.dtype) == "str" else str(column.dtype))
        for name, column in schema.columns.items()
    }
    return pd.DataFrame(columns)


class _Tally:
    """What must hold over the whole collection, kept as numbers, not as texts, for each image."""

    def __init__(self, class_names: list[str]):
        self.num_by_split = dict.fromkeys(SPLITS, 0)
        self.num_rejects = 0
        self.first_rejects: list[str] = []
        self._class_names = class_names
        self._num_train = [0] * len(class_names)
        self._keys: set[int] = set()

    def judge(self, rows: list[dict]) -> tuple[list[dict], list[dict]]:
        """Count a chunk's rows; return the accepted and the refused."""
        for row in rows:
            self._see_key(row)
        good = [row for row in rows if "reason" not in row]
        for row in good:
            self._accept(row)
        bad = [row for row in rows if "reason" in row]
        self.num_rejects += len(bad)
        missing = NUM_REASONS - len(self.first_rejects)
        self.first_rejects += [f"{row['archive']}: {row['key']}: {row['reason']}" for row in bad[:missing]]
        return good, bad

    def _see_key(self, row: dict) -> None:
        short = rng.key(row["key"])
        if short in self._keys:
            raise ManifestError(f"duplicate key {row['key']!r} (archive {row['archive']}, offset {row['offset']})")
        self._keys.add(short)

    def _accept(self, row: dict) -> None:
        self.num_by_split[row["split"]] += 1
        if row["split"] == "train":
            self._num_train[row["label"]] += 1

    def drop(self, rows: Iterable[dict]) -> None:
        """Count accepted rows no longer."""
        for row in rows:
            self.num_by_split[row["split"]] -= 1
            self._num_train[row["label"]] -= row["split"] == "train"

    def check_rejects(self, max_fraction: float, rejects: Path) -> None:
        num_images = self.num_rejects + sum(self.num_by_split.values())
        if num_images == 0:
            raise ManifestError("the collection holds no images")
        if self.num_rejects > max_fraction * num_images:
            more = self.num_rejects - len(self.first_rejects)
            raise ManifestError(
                f"{self.num_rejects} of {num_images} images were refused, more than max_reject_fraction {max_fraction}"
                " allows:\n  "
                + "\n  ".join(self.first_rejects)
                + (f"\n  … and {more} more" if more else "")
                + f"\nall of them, with their reasons, are in {rejects}"
            )

    def check_classes(self) -> None:
        empty = [name for name, count in zip(self._class_names, self._num_train, strict=True) if count == 0]
        if empty:
            raise ManifestError(f"class {empty[0]!r} has no training image ({len(empty)} such classes)")
