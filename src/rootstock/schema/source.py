"""Source: the archives that `fetch` found or downloaded."""

from pathlib import Path

import pandera.pandas as pa

from rootstock.schema.contract import ContractError, check_rows, fullmatch, read_json, write_json
from rootstock.schema.names import SHA256

FILES = pa.DataFrameSchema(
    {
        # relative to the collection's own folder, so that two machines agree on it
        "name": pa.Column(str, pa.Check.str_matches(r"^(?!/)(?!.*(^|/)\.\.(/|$)).+$"), unique=True),
        "num_bytes": pa.Column("int64", pa.Check.ge(0)),
        "sha256": pa.Column(str, fullmatch(SHA256)),
    },
    strict=True,
    ordered=True,
    name="Source",
)
KEYS = {"collection", "files", "verified"}
VERIFIED = {"official", "own", "off"}


def write(path: Path, *, collection: str, verified: str, files: list[dict]) -> None:
    """Write source.json; `verified` says which sums the files were compared with."""
    files = sorted(files, key=lambda file: file["name"])
    write_json(path, _checked({"collection": collection, "files": files, "verified": verified}, path))


def read(path: Path) -> dict:
    """Read and check source.json: `collection`, `verified`, `files` (name, num_bytes, sha256).

    Raises:
        ContractError: naming file, row, column, found and wanted.
    """
    return _checked(read_json(path), path)


def _checked(value: dict, path: Path) -> dict:
    if not isinstance(value, dict) or set(value) != KEYS:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: found keys {found}, wanted {sorted(KEYS)}")
    if value["verified"] not in VERIFIED:
        raise ContractError(f"{path}: verified: found {value['verified']!r}, wanted one of {sorted(VERIFIED)}")
    if not isinstance(value["collection"], str) or not value["collection"]:
        raise ContractError(f"{path}: collection: found {value['collection']!r}, wanted a name")
    check_rows(value["files"], FILES, path, where="files")
    names = [file["name"] for file in value["files"]]
    if names != sorted(names):
        raise ContractError(f"{path}: files: found {names[:3]} …, wanted them sorted by name")
    return value
