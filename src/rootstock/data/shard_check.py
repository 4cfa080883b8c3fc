"""Compare shards with their index byte for byte, and name what differs by shard and key.

A shard's bytes follow from its rows: the label's header, the label, the image's header, the image, zeros up to the
block, the next sample, and zeros to the end. So every byte but those of the end belongs to a key.
"""

import hashlib
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.compute

from rootstock.data.open_file import OpenFile
from rootstock.data.shard_set import (
    INDEX_NAME,
    SAMPLE_HEAD_BYTES,
    check_keys,
    index_difference,
    read_index_facts,
    size_difference,
)
from rootstock.data.shard_writer import extension
from rootstock.data.tar_writer import BLOCK, header, member_bytes
from rootstock.schema.contract import ContractError, iterate_table, read_facts
from rootstock.schema.shards import INDEX, INDEX_ARROW

MAX_TOLD = 20  # differences of one shard
_SMALL = ("split", "shard", "format")  # few different values: kept as numbers into a dictionary


class _Scan(NamedTuple):
    """The samples whose headers follow one another in a tar."""

    keys: list[str]
    is_whole: bool  # False where a header is damaged: what lies behind it is not known


def verify_shards(folder: Path) -> list[str]:
    """Read every byte and list how shards and index differ, by shard and key; empty when they do not.

    Raises:
        ShardError: there is no index.
        ContractError: the index's sum is right, yet it breaks its contract.
    """
    path = folder / INDEX_NAME
    changed = index_difference(path) if path.is_file() else None
    if changed is None:
        return _differences(folder, read_index_facts(path))
    try:  # what its readable rows say tells which of them were changed
        return [changed, *_differences(folder, read_facts(path))]
    except (ContractError, KeyError, TypeError, ValueError) as error:
        return [changed, f"{path}: cannot be understood: {error}"]


def _differences(folder: Path, facts: dict) -> list[str]:
    path = folder / INDEX_NAME
    index = _load(path)
    check_keys(index["key"], path)
    names = index["shard"].cast(pyarrow.string())
    differences = [
        f"{extra}: found a shard that the index does not know"
        for extra in sorted(folder.glob("*.tar"))
        if extra.name not in facts["shards"]
    ]
    differences += [
        f"{path}: found rows of {name}, wanted one of the facts' shards"
        for name in sorted(set(pyarrow.compute.unique(names).to_pylist()) - set(facts["shards"]))
    ]
    for name, shard in facts["shards"].items():
        rows = index.filter(pyarrow.compute.equal(names, name)).sort_by("offset").to_pylist()
        differences += _shard_differences(folder / name, shard, rows, num_classes=len(facts["class_names"]))
    return differences


def _load(path: Path) -> pyarrow.Table:
    fields = [
        pyarrow.field(field.name, pyarrow.dictionary(pyarrow.int32(), field.type)) if field.name in _SMALL else field
        for field in INDEX_ARROW
    ]
    schema = pyarrow.schema(fields)
    tables = [pyarrow.Table.from_pandas(frame, schema, preserve_index=False) for frame in iterate_table(path, INDEX)]
    return pyarrow.concat_tables(tables).unify_dictionaries()


def _shard_differences(path: Path, shard: dict, rows: list[dict], *, num_classes: int) -> list[str]:
    found = []
    if len(rows) != shard["num_samples"]:
        found.append(f"{path}: found {len(rows)} rows in the index, wanted {shard['num_samples']}")
    difference = size_difference(path, shard["num_bytes"])
    if difference is not None:
        found.append(difference)
    if not path.is_file():
        return found
    file = OpenFile(path)
    named, shifted, end = list(found), [], 0
    for row in rows:
        if row["label"] >= num_classes:
            named.append(f"{path}: {row['key']}: found label {row['label']}, wanted less than {num_classes} classes")
        if row["offset"] - SAMPLE_HEAD_BYTES != end:
            named.append(
                f"{path}: {row['key']}: found offset {row['offset']} in the index, wanted {end + SAMPLE_HEAD_BYTES}"
            )
        end = row["offset"] - BLOCK + member_bytes(row["num_bytes"])
        is_in_place, difference = _sample_difference(file, row)
        if difference is not None:
            (named if is_in_place else shifted).append(f"{path}: {row['key']}: {difference}")
    if named or shifted:  # those that only moved tell least
        found = named + _moves(path, [row["key"] for row in rows]) + shifted
    if len(found) > MAX_TOLD:
        found[MAX_TOLD:] = [f"{path}: … and {len(found) - MAX_TOLD} more differences"]
    return found or _rest(path, file, shard, end)


def _sample_difference(file: OpenFile, row: dict) -> tuple[bool, str | None]:
    """Whether the sample's own header is at its place, and how the sample differs."""
    label, size = b"%d" % row["label"], row["num_bytes"]
    wanted = {
        "the label's header": header(f"{row['key']}.cls", len(label)),
        "the label": label.ljust(BLOCK, b"\0"),
        "the image's header": header(f"{row['key']}.{extension(row['format'])}", size),
    }
    start, length = row["offset"] - SAMPLE_HEAD_BYTES, SAMPLE_HEAD_BYTES - BLOCK + member_bytes(size)
    data = file.read(max(start, 0), length)
    if start < 0 or len(data) < length:
        return False, f"found {len(data)} bytes, wanted {length}: the shard is cut short, or the offset is wrong"
    found = [data[place * BLOCK : (place + 1) * BLOCK] for place in range(len(wanted))]
    differ = [name for name, block in zip(wanted, found, strict=True) if wanted[name] != block]
    image, padding = data[SAMPLE_HEAD_BYTES : SAMPLE_HEAD_BYTES + size], data[SAMPLE_HEAD_BYTES + size :]
    texts = [f"{', '.join(differ)}: found other bytes than the index says"] if differ else []
    if "the label" in differ and len(differ) < len(wanted):
        texts.append(f"found the label {found[1].rstrip(bytes(1))[:20]!r}, wanted {row['label']}")
    sha256 = hashlib.sha256(image).hexdigest()
    if sha256 != row["sha256"]:
        texts.append(f"found {size} bytes of sha256 {sha256}, wanted {size} of {row['sha256']}")
    if any(padding):
        texts.append("found other bytes than zeros behind the image")
    has_header = found[0] == wanted["the label's header"] or found[2] == wanted["the image's header"]
    return has_header, "; ".join(texts) or None


def _moves(path: Path, keys: list[str]) -> list[str]:
    """What the tar's own headers say: samples that are missing, doubled, or not known to the index."""
    scan = _scan(path)
    counts = Counter(scan.keys)
    told = [f"{path}: {key}: is there {count} times" for key, count in counts.items() if count > 1]
    known = set(keys)
    told += [f"{path}: {key}: is there, but the index does not know it here" for key in counts if key not in known]
    if scan.is_whole:
        told += [f"{path}: {key}: is missing" for key in keys if key not in counts]
    return told


def _scan(path: Path) -> _Scan:
    keys: list[str] = []
    with open(path, "rb") as file:
        while any(block := file.read(BLOCK)):
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                return _Scan(keys, is_whole=False)
            if member.size < 0:
                return _Scan(keys, is_whole=False)
            name, _, kind = member.name.rpartition(".")
            if kind != "cls":
                keys.append(name)
            file.seek(member_bytes(member.size) - BLOCK, 1)
    return _Scan(keys, is_whole=True)


def _rest(path: Path, file: OpenFile, shard: dict, end: int) -> list[str]:
    """What can still differ when every sample is as the index says: the zeros at the end, or the facts themselves."""
    if any(file.read(end, shard["num_bytes"] - end)):
        return [f"{path}: found other bytes than zeros at the end, behind the last sample"]
    with open(path, "rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != shard["sha256"]:
        return [f"{path}: found sha256 {found}, wanted {shard['sha256']}, though every sample is as the index says"]
    return []
