"""Read shards at any position, from any number of threads, every byte accounted for by the index."""

import hashlib
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute

from rootstock.data import decode
from rootstock.data.open_file import OpenFile
from rootstock.data.tar_writer import BLOCK, archive_bytes, member_bytes
from rootstock.schema.contract import ContractError, iterate_table, read_facts
from rootstock.schema.names import SPLITS
from rootstock.schema.shards import INDEX, check_shards

INDEX_NAME = "index.parquet"
SUM_NAME = "index.sha256"  # parquet's footer has no sum of its own, and it holds the facts
SAMPLE_HEAD_BYTES = member_bytes(1) + BLOCK  # before an image: its label's member, and its own header
MAX_OPEN_SHARDS = 64  # a process may commonly have 1024 files open, and large collections have more shards
FACTS = {"collection", "class_names", "data_digest", "decode", "quality", "shards", "short_side"}


class ShardError(ValueError):
    """Shards that are not what their index says; the message names shard and key."""


class ShardSet:
    """A folder of shards, read at any position by any number of threads.

    A position is a row of the index. Opening compares the index with itself and with the sizes of the files;
    `read` with `verify="always"` compares each image with its sha256; `shards.verify_shards` compares every byte.

    Attributes:
        facts: the index's facts (collection, class_names, data_digest, decode, quality, short_side, shards).
        labels: int64 (n,), index into `class_names`.
        splits: str (n,), train, val or test.
        gate: bool (n,), the val images kept for promotion.
    """

    def __init__(self, folder: Path, *, verify: Literal["always", "never"]):
        """Open a folder.

        Raises:
            ShardError: no index, an index that changed, or a shard that is missing or has another size than it says.
            ContractError: the index breaks its contract.
        """
        assert verify in ("always", "never"), verify
        self.folder = folder
        self.verify = verify
        path = folder / INDEX_NAME
        self.facts = read_index_facts(path)
        self._names = sorted(self.facts["shards"])
        number = {name: place for place, name in enumerate(self._names)}
        pieces = [_packed(frame, number, path) for frame in iterate_table(path, INDEX)]
        arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0] if name != "key"}
        self._keys = pyarrow.chunked_array([piece["key"] for piece in pieces])
        check_keys(self._keys, path)
        self.labels, self.gate, self.splits = arrays["label"], arrays["gate"], arrays["split"]
        self._shards, self._offsets, self._sizes, self._sums = (
            arrays[name] for name in ("shard", "offset", "num_bytes", "sha256")
        )
        self._check(path)
        # least recently used ones close, each when the last thread that reads from it lets go of it
        self._open = lru_cache(MAX_OPEN_SHARDS)(partial(_open_shard, folder, self._names))

    def _check(self, path: Path) -> None:
        counts = np.bincount(self._shards, minlength=len(self._names))
        check_shards(
            {name: int(count) for name, count in zip(self._names, counts, strict=True) if count},
            self.facts["shards"],
            path,
        )
        num_classes = len(self.class_names)
        if len(self.labels) and self.labels.max() >= num_classes:
            raise ContractError(
                f"{path}: column label: found {self.labels.max()}, wanted less than {num_classes} classes"
            )
        self._check_layout(path)
        for name, shard in self.facts["shards"].items():
            difference = size_difference(self.folder / name, shard["num_bytes"])
            if difference:
                raise ShardError(difference)

    def _check_layout(self, path: Path) -> None:
        """Offsets and sizes must follow from each other: samples lie one behind the other in every shard."""
        order = np.lexsort((self._offsets, self._shards))
        shards, offsets = self._shards[order], self._offsets[order]
        ends = offsets + (self._sizes[order] + BLOCK - 1) // BLOCK * BLOCK
        is_first = np.diff(shards, prepend=-1) != 0
        wanted = np.where(is_first, 0, np.roll(ends, 1)) + SAMPLE_HEAD_BYTES
        for place in np.flatnonzero(offsets != wanted)[:1]:
            before = "" if is_first[place] else f", where {self._keys[order[place - 1]].as_py()} ends"
            raise ContractError(
                f"{path}: {self._where(order[place])}: found offset {offsets[place]}, wanted {wanted[place]}{before}"
            )
        for place in np.flatnonzero(np.diff(shards, append=len(self._names))):
            found = archive_bytes(int(ends[place]))
            num_bytes = self.facts["shards"][self._names[shards[place]]]["num_bytes"]
            if found != num_bytes:
                raise ContractError(
                    f"{path}: {self._where(order[place])}: found a last sample that makes the shard {found} bytes, "
                    f"wanted {num_bytes}"
                )

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, by label."""
        return self.facts["class_names"]

    @cached_property
    def keys(self) -> np.ndarray:
        """The samples' keys, str objects (n,)."""
        return self._keys.to_numpy()

    @cached_property
    def _by_key(self) -> np.ndarray:
        return pyarrow.compute.sort_indices(self._keys).to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def positions(self, splits: list[str], *, gate: bool | None) -> np.ndarray:
        """Return the positions of some splits' samples, in the order of their keys, whatever the shards' cut or seed.

        Args:
            splits: of train, val, test.
            gate: True or False selects only samples (not) kept for promotion; None both.

        Returns:
            int64 (m,).
        """
        assert set(splits) <= set(SPLITS), splits
        wanted = np.isin(self.splits, splits)
        if gate is not None:
            wanted &= self.gate == gate
        return self._by_key[wanted[self._by_key]]

    def read(self, position: int) -> bytes:
        """Return an image's bytes; safe to call from several threads.

        Raises:
            ShardError: the shard ends too early, or (verify) its bytes are not those that were written.
        """
        size = int(self._sizes[position])
        data = self._open(int(self._shards[position])).read(int(self._offsets[position]), size)
        if len(data) != size:
            raise ShardError(f"{self._where(position)}: found {len(data)} bytes, wanted {size}: the shard is cut short")
        if self.verify == "always" and hashlib.sha256(data).digest() != self._sums[position].tobytes():
            raise ShardError(
                f"{self._where(position)}: found sha256 {hashlib.sha256(data).hexdigest()}, "
                f"wanted {self._sums[position].tobytes().hex()}: the bytes changed on the disk"
            )
        return data

    def decode(
        self,
        data: bytes,
        *,
        scratch: decode.Scratch | None = None,
        num_rows: Callable[[int, int], int] | None = None,
    ) -> np.ndarray:
        """Return an image's pixels, uint8 (H, W, 3), by the decoder that the manifest was made with.

        Args:
            scratch: memory to decode into; the pixels are then valid until this thread decodes into it again.
            num_rows: tells from height and width how many rows from the top are needed; the image may then have fewer
                than the whole. Only verified bytes are cut short: the manifest's making decoded all of those.

        Raises:
            ImageError: the bytes are no image.
        """
        num_rows = num_rows if self.verify == "always" else None
        return decode.decode(data, **self.facts["decode"], scratch=scratch, num_rows=num_rows).image_HWC

    def close(self) -> None:
        """Close the files; reads under way end first."""
        self._open.cache_clear()

    def __enter__(self) -> "ShardSet":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _where(self, position: int) -> str:
        return f"{self.folder / self._names[self._shards[position]]}: {self._keys[position].as_py()}"


def read_index_facts(path: Path) -> dict:
    """Return the index's facts.

    Raises:
        ShardError: there is no index, or it changed.
        ContractError: other facts than an index has.
    """
    if not path.is_file():
        raise ShardError(f"{path} is missing: the shards are not there or were not finished")
    difference = index_difference(path)
    if difference is not None:
        raise ShardError(difference)
    facts = read_facts(path)
    if set(facts) != FACTS:
        raise ContractError(f"{path}: found facts {sorted(facts)}, wanted {sorted(FACTS)}")
    return facts


def index_difference(path: Path) -> str | None:
    """Tell how the index differs from the sum that was written with it, or None."""
    note = path.with_name(SUM_NAME)
    if not note.is_file():
        return f"{note} is missing, wanted the sha256 of {INDEX_NAME}; write the shards again"
    wanted, found = note.read_bytes(), index_sum(path)
    return None if wanted == found else f"{path}: found sha256 {found!r}, wanted {wanted!r} of {SUM_NAME}"


def index_sum(path: Path) -> bytes:
    """What `SUM_NAME` holds: the index's sha256 in hexadecimal, and the end of the line."""
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()


def _packed(frame: pd.DataFrame, number: dict[str, int], path: Path) -> dict[str, np.ndarray | pyarrow.Array]:
    unknown = set(frame["shard"]) - set(number)
    if unknown:
        raise ContractError(f"{path}: column shard: found {sorted(unknown)[0]}, wanted one of the facts' shards")
    sums = np.frombuffer(bytes.fromhex("".join(frame["sha256"])), np.uint8).reshape(-1, 32)
    return {
        "key": pyarrow.array(frame["key"], pyarrow.string()),
        "split": frame["split"].to_numpy().astype("U5"),
        "label": frame["label"].to_numpy(np.int64),
        "gate": frame["gate"].to_numpy(bool),
        "shard": frame["shard"].map(number).to_numpy(np.int32),
        "offset": frame["offset"].to_numpy(np.int64),
        "num_bytes": frame["num_bytes"].to_numpy(np.int64),
        "sha256": sums,
    }


def size_difference(path: Path, num_bytes: int) -> str | None:
    """Tell how a file differs from its size in the index, or None."""
    if not path.is_file():
        return f"{path}: is missing, wanted {num_bytes} bytes"
    found = path.stat().st_size
    return None if found == num_bytes else f"{path}: found {found} bytes, wanted {num_bytes}"


def _open_shard(folder: Path, names: list[str], shard: int) -> OpenFile:
    return OpenFile(folder / names[shard])


def check_keys(keys: pyarrow.ChunkedArray, file: Path) -> None:
    """Check that keys are unique in the whole table; its contract sees one row group at a time.

    Raises:
        ContractError: naming a key that is there twice.
    """
    if pyarrow.compute.count_distinct(keys).as_py() != len(keys):
        counts = pyarrow.compute.value_counts(keys)
        double = counts.filter(pyarrow.compute.greater(counts.field("counts"), 1)).field("values")[0]
        raise ContractError(f"{file}: column key: found {double.as_py()!r} more than once, wanted unique keys")
