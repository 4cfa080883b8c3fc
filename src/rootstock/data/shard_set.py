"""Read shards at any position, from any number of threads, every byte accounted for by the index."""

import hashlib
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute

from rootstock.data import decode
from rootstock.data.open_file import OpenFile
from rootstock.schema.contract import ContractError, iterate_table, read_facts
from rootstock.schema.names import SPLITS
from rootstock.schema.shards import INDEX, check_shards

INDEX_NAME = "index.parquet"
MAX_OPEN_SHARDS = 64  # a process may commonly have 1024 files open, and large collections have more shards
FACTS = {"collection", "class_names", "data_digest", "decode", "quality", "shards", "short_side"}


class ShardError(ValueError):
    """Shards that are not what their index says; the message names shard and key."""


class ShardSet:
    """A folder of shards, read at any position by any number of threads.

    A position is a row of the index. Opening compares the index with itself and with the sizes of the files;
    `read` with `verify="always"` compares each image with its sha256; `verify_shards` compares every byte.

    Attributes:
        facts: the index's facts (collection, class_names, data_digest, decode, quality, short_side, shards).
        labels: int64 (n,), index into `class_names`.
        splits: str (n,), train, val or test.
        gate: bool (n,), the val images kept for promotion.
    """

    def __init__(self, folder: Path, *, verify: Literal["always", "never"]):
        """Open a folder.

        Raises:
            ShardError: no index, or a shard is missing or has another size than the index says.
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
        for name, shard in self.facts["shards"].items():
            difference = _size_difference(self.folder / name, shard["num_bytes"])
            if difference:
                raise ShardError(difference)

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

    def decode(self, data: bytes) -> np.ndarray:
        """Return an image's pixels, uint8 (H, W, 3), by the decoder that the manifest was made with.

        Raises:
            ImageError: the bytes are no image.
        """
        return decode.decode(data, **self.facts["decode"]).image_HWC

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
        ShardError: there is no index.
        ContractError: other facts than an index has.
    """
    if not path.is_file():
        raise ShardError(f"{path} is missing: the shards are not there or were not finished")
    facts = read_facts(path)
    if set(facts) != FACTS:
        raise ContractError(f"{path}: found facts {sorted(facts)}, wanted {sorted(FACTS)}")
    return facts


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


def _size_difference(path: Path, num_bytes: int) -> str | None:
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


def verify_shards(folder: Path) -> list[str]:
    """Read every byte and list how the shards differ from their index; empty when they do not.

    A shard of the right size but another sha256 is searched for the samples that changed; when none did, the change
    is in a header, a label or the padding.

    Raises:
        ContractError: the index itself breaks its contract.
    """
    path = folder / INDEX_NAME
    facts = read_index_facts(path)
    differences = [
        f"{extra}: found a shard that the index does not know"
        for extra in sorted(folder.glob("*.tar"))
        if extra.name not in facts["shards"]
    ]
    changed: dict[str, str] = {}
    for name, shard in facts["shards"].items():
        difference = _size_difference(folder / name, shard["num_bytes"])
        if difference is not None:
            differences.append(difference)
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != shard["sha256"]:
                changed[name] = f"{folder / name}: found sha256 {found}, wanted {shard['sha256']}"
    samples = _changed_samples(folder, set(changed)) if changed else {}
    for name, difference in changed.items():
        differences += samples.get(name, [f"{difference}: no image differs, but a header, a label or the padding does"])
    return differences


def _changed_samples(folder: Path, names: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for frame in iterate_table(folder / INDEX_NAME, INDEX):
        for row in frame[frame["shard"].isin(names)].itertuples(index=False):
            data = _bytes_at(folder / row.shard, row.offset, row.num_bytes)
            if hashlib.sha256(data).hexdigest() != row.sha256:
                found.setdefault(row.shard, []).append(
                    f"{folder / row.shard}: {row.key}: found {len(data)} bytes of sha256 "
                    f"{hashlib.sha256(data).hexdigest()}, wanted {row.num_bytes} of {row.sha256}"
                )
    return found


def _bytes_at(path: Path, offset: int, num_bytes: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(num_bytes)
