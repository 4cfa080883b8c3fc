"""The contract of source.json finds what was changed."""

import copy

import pytest

from rootstock.schema import source
from rootstock.schema.contract import ContractError, write_json

SUM = "0123456789abcdef" * 4
WHOLE = {
    "collection": "flowers102",
    "verified": "official",
    "files": [
        {"name": "102flowers.tgz", "num_bytes": 10, "sha256": SUM},
        {"name": "sub/setid.mat", "num_bytes": 0, "sha256": SUM},
    ],
}


def test_the_rows_are_sorted_on_writing(tmp_path):
    path = tmp_path / "source.json"
    source.write(path, collection="flowers102", verified="official", files=WHOLE["files"][::-1])
    assert source.read(path) == WHOLE


def change(*place, value):
    changed = copy.deepcopy(WHOLE)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


MUTATIONS = {
    "an absolute name": (change("files", 0, "name", value="/etc/passwd"), r"row 0, column name: found '/etc/passwd'"),
    "a name that climbs": (change("files", 1, "name", value="sub/../../x"), r"row 1, column name"),
    "a doubled name": (change("files", 1, "name", value="102flowers.tgz"), r"row [01], column name: found '102flowers"),
    "a negative size": (change("files", 0, "num_bytes", value=-1), r"row 0, column num_bytes: found -1"),
    "a size in words": (change("files", 0, "num_bytes", value="10"), r"column num_bytes: found"),
    "a short sum": (change("files", 0, "sha256", value=SUM[1:]), r"row 0, column sha256: found '1234"),
    "a sum with a line end": (change("files", 0, "sha256", value=SUM + "\n"), r"row 0, column sha256"),
    "no files": (change("files", value=[]), r"files: found no rows, wanted a list of rows"),
    "files that are no list": (change("files", value={}), r"files: found dict, wanted a list of rows"),
    "a file with a path": (
        change("files", 0, "path", value="/x"),
        r"files: row 0: found \['name', 'num_bytes', 'path'",
    ),
    "files out of order": (change("files", value=WHOLE["files"][::-1]), r"wanted them sorted by name"),
    "an unknown verification": (change("verified", value="md5"), r"verified: found 'md5', wanted one of"),
    "no name of the collection": (change("collection", value=3), r"collection: found 3, wanted a name"),
    "a time": (change("fetched", value="2020"), r"found keys \['collection', 'fetched'"),
    "a list": ([WHOLE], r"found keys list, wanted \['collection', 'files', 'verified'\]"),
}


@pytest.mark.parametrize(("value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_source_is_found(tmp_path, value, message):
    path = tmp_path / "source.json"
    write_json(path, value)
    with pytest.raises(ContractError, match=message) as caught:
        source.read(path)
    assert str(caught.value).startswith(str(path))


def test_what_is_written_is_checked_first(tmp_path):
    with pytest.raises(ContractError, match="files: found no rows"):
        source.write(tmp_path / "source.json", collection="demo", verified="off", files=[])
    assert list(tmp_path.iterdir()) == []
