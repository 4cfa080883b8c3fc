"""Which file of a folder is not what DVC recorded: by DVC's own listing of it, else by the sums inside the folder."""

import hashlib
import json
from pathlib import Path

from rootstock.data.shard_check import verify_shards
from rootstock.data.shard_set import INDEX_NAME
from rootstock.models.bundle import MODEL, WEIGHTS
from rootstock.ops.fingerprint import dvc_hash
from rootstock.schema.contract import ContractError, read_json

CACHE = Path(".dvc/cache/files/md5")


def listing(md5: str, *, project: Path = Path()) -> dict[str, str] | None:
    """Return the files of a recorded folder, relative path -> md5; None where the cache has no whole listing of it."""
    path = project / CACHE / md5[:2] / md5[2:]
    if not md5.endswith(".dir") or not path.is_file():
        return None
    data = path.read_bytes()
    if f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir" != md5:
        return None
    return {row["relpath"]: row["md5"] for row in json.loads(data)}


def differing(folder: Path, recorded: dict[str, str]) -> list[str]:
    """Compare a folder with the files recorded of it; a name and what is wrong with it each."""
    present = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    lines = [f"{name} is missing" for name in sorted(recorded.keys() - present.keys())]
    lines += [f"{name} is new" for name in sorted(present.keys() - recorded.keys())]
    changed = [name for name in sorted(present.keys() & recorded.keys()) if dvc_hash(present[name]) != recorded[name]]
    return lines + [f"{name} differs" for name in changed]


def explain(path: Path, wanted: str) -> str:
    """Say which files of a folder differ, in words; empty for a file, which says all itself."""
    if not path.is_dir():
        return ""
    recorded = listing(wanted)
    if recorded is not None:
        return "; ".join(differing(path, recorded))
    if (path / INDEX_NAME).is_file():
        try:
            lines = verify_shards(path)
        except ContractError as error:
            return str(error)
        return "; ".join(lines) or f"every shard is as {INDEX_NAME} says, so {INDEX_NAME} itself differs"
    if (path / MODEL).is_file() and (path / WEIGHTS).is_file():
        return _model(path)
    return ""


def _model(folder: Path) -> str:
    try:
        wanted = read_json(folder / MODEL).get("weights_sha256")
    except ContractError as error:
        return str(error)
    with open(folder / WEIGHTS, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == wanted:
        return f"{WEIGHTS} is as {MODEL} says, so {MODEL} differs, or both"
    return f"{WEIGHTS}: found sha256 {found}, {MODEL} wants {wanted}"
