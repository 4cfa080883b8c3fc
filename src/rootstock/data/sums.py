"""Checksums of files, remembered by what the file system says about a file so that 150 GB are read once."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from functools import cache as once
from pathlib import Path

from tqdm import tqdm

from rootstock.schema.contract import write_json

BLOCK_BYTES = 1 << 20
CACHE_NAME = ".sums.json"
# A file changed twice within one tick of the file system's clock keeps its mtime: so young a file is not remembered.
SETTLED_SECONDS = 2.0


def sha256(path: Path, *, cache: Path | None) -> str:
    """Return a file's sha256 in hexadecimal; `cache` is a writable folder that remembers sums, or None."""
    return sums([path], algorithms=("sha256",), cache=cache)[0]["sha256"]


def md5(path: Path, *, cache: Path | None) -> str:
    """Return a file's md5 in hexadecimal; `cache` is a writable folder that remembers sums, or None."""
    return sums([path], algorithms=("md5",), cache=cache)[0]["md5"]


def sums(
    paths: Iterable[Path], *, algorithms: tuple[str, ...], cache: Path | None, progress: bool = False
) -> list[dict[str, str]]:
    """Return each file's sums, all algorithms in one reading of the file.

    Args:
        paths: the files.
        algorithms: names that `hashlib` knows, such as ("md5", "sha256").
        cache: a folder that remembers sums by (device, inode, size, mtime in ns), or None to always read.
        progress: show a bar on a terminal.

    Returns:
        For each path, {algorithm: hexadecimal sum}.

    Raises:
        OSError: a file cannot be read.
    """
    paths = list(paths)
    known = _read_cache(cache)
    fresh: dict[str, dict[str, str]] = {}
    num_bytes = sum(path.stat().st_size for path in paths)
    try:
        with tqdm(
            total=num_bytes,
            unit="B",
            unit_scale=True,
            desc="checksums",
            leave=False,
            disable=None if progress else True,
        ) as bar:
            return [_sums_of(path, algorithms, known, fresh, bar) for path in paths]
    finally:  # an interruption keeps what is done
        if cache is not None and fresh:
            _remember(cache, fresh)


def _sums_of(
    path: Path,
    algorithms: tuple[str, ...],
    known: dict[str, dict[str, str]],
    fresh: dict[str, dict[str, str]],
    bar: tqdm,
) -> dict[str, str]:
    with open(path, "rb", buffering=0) as file:
        before = _entry(file.fileno())
        found = known.get(before, {})
        if set(algorithms) <= set(found):
            bar.update(os.fstat(file.fileno()).st_size)
            return {name: found[name] for name in algorithms}
        hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        while block := file.read(BLOCK_BYTES):
            for running in hashes.values():
                running.update(block)
            bar.update(len(block))
        result = {name: running.hexdigest() for name, running in hashes.items()}
        settled = time.time() - os.fstat(file.fileno()).st_mtime > SETTLED_SECONDS
        if settled and _entry(file.fileno()) == before:
            fresh[before] = result
    return result


def _entry(descriptor: int) -> str:
    stat = os.fstat(descriptor)
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def _remember(cache: Path, fresh: dict[str, dict[str, str]]) -> None:
    merged = _read_cache(cache)
    for entry, found in fresh.items():
        merged[entry] = {**merged.get(entry, {}), **found}
    try:
        write_json(cache / CACHE_NAME, merged)
    except OSError as error:  # the sums are right all the same, and may have taken an hour
        _warn(cache / CACHE_NAME, error.strerror)


@once
def _warn(path: Path, why: str) -> None:
    print(f"warning: {path} cannot be written ({why}): checksums are not remembered", file=sys.stderr)


def _read_cache(cache: Path | None) -> dict[str, dict[str, str]]:
    """A cache that is absent, unreadable or damaged costs time, never an answer."""
    if cache is None:
        return {}
    try:
        value = json.loads((cache / CACHE_NAME).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
