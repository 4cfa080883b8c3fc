"""Notes on whole shards, by which a job that was killed goes on where it was.

A note beside a shard says for which task it was written (samples, settings, code and libraries) and what it holds. It
is believed only when the task is the same and the shard's bytes have the sum that the note says.
"""

import hashlib
import importlib.metadata
import json
import os
from functools import cache
from pathlib import Path

import pyarrow

from rootstock.data import decode as decoding
from rootstock.data import tar_writer

# what decides a shard's bytes beside its samples and settings
MODULES = (Path(decoding.__file__), Path(tar_writer.__file__), Path(__file__).with_name("shard_writer.py"))
LIBRARIES = ("numpy", "pillow", "simplejpeg", "torch")


def identity(samples: pyarrow.Table, *settings: object) -> str:
    """Return the sha256 of all that decides a shard's bytes."""
    sum_ = hashlib.sha256(_code())
    sum_.update(json.dumps(settings, sort_keys=True).encode())
    # through Python, for Arrow's own bytes depend on how the table was cut
    columns = samples.drop_columns(["archive", "offset"]).to_pydict()  # where the images lie does not matter
    sum_.update(json.dumps(columns, sort_keys=True).encode())
    return sum_.hexdigest()


@cache
def _code() -> bytes:
    texts = [path.read_bytes() for path in MODULES]
    versions = [importlib.metadata.version(name).encode() for name in LIBRARIES]
    return b"\0".join([*texts, *versions])


def keep(folder: Path, names: set[str]) -> None:
    """Make the folder of unfinished work; of an earlier job's, only shards of these names and their notes stay."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name.removesuffix(".json") not in names:
            path.unlink()


def write(shard: Path, identity: str, value: dict) -> None:
    """Note what a whole shard holds; not made durable: a note that is lost or damaged costs a shard's time."""
    temporary = shard.with_name(f".{shard.name}.json.tmp")
    temporary.write_text(json.dumps({"identity": identity, **value}))
    os.replace(temporary, _path(shard))


def read(shard: Path, identity: str) -> dict | None:
    """Return what `write` noted, or None where there is no shard of this task whose bytes are as noted."""
    try:
        note = json.loads(_path(shard).read_bytes())
        if note["identity"] != identity:
            return None
        with open(shard, "rb") as file:
            is_same = hashlib.file_digest(file, "sha256").hexdigest() == note["facts"]["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return note if is_same else None


def _path(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.json")
