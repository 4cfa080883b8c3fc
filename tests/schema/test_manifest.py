"""The contracts of manifest and rejects find what was changed, in one cell, across columns and across rows."""

import pandas as pd
import pytest

from rootstock.schema.contract import ContractError, check, read_table, write_table
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW, REJECTS, REJECTS_ARROW


def manifest() -> pd.DataFrame:
    rows = [
        {
            "key": f"class/{number}",
            "split": split,
            "label": number,
            "archive": "images.tar",
            "offset": 100 * number,
            "num_bytes": 100,
            "format": "jpeg",
            "width": 4,
            "height": 3,
            "sha256": f"{number:064x}",
            "gate": split == "val",
        }
        for number, split in enumerate(("train", "train", "val", "test"))
    ]
    return pd.DataFrame(rows).astype({"label": "int32", "width": "int32", "height": "int32"})


def rejects() -> pd.DataFrame:
    frame = manifest()[["key", "split", "label", "archive", "offset", "num_bytes"]]
    return frame.assign(reason="empty file", num_bytes=0)


@pytest.mark.parametrize(
    ("frame", "schema", "arrow"), [(manifest(), MANIFEST, MANIFEST_ARROW), (rejects(), REJECTS, REJECTS_ARROW)]
)
def test_a_whole_table_is_written_and_read(frame, schema, arrow, tmp_path):
    write_table(tmp_path / "t.parquet", [frame.copy()], schema, arrow, {})
    assert read_table(tmp_path / "t.parquet", schema).equals(frame)
    assert list(arrow.names) == list(schema.columns)
    write_table(tmp_path / "empty.parquet", [], schema, arrow, {})
    assert len(read_table(tmp_path / "empty.parquet", schema)) == 0


MUTATIONS = {
    "a doubled key": ("key", 1, "class/0", r"row 1, column key: found 'class/0'"),
    "a key with a dot": ("key", 0, "a.b", r"row 0, column key: found 'a.b'"),
    "a key that begins with a slash": ("key", 0, "/a", r"row 0, column key: found '/a'"),
    "a key with a line end": ("key", 0, "ab\n", r"row 0, column key"),
    "an unknown split": ("split", 0, "dev", r"row 0, column split: found 'dev', wanted isin"),
    "a negative label": ("label", 2, -1, r"row 2, column label: found -1"),
    "no archive": ("archive", 2, "", r"row 2, column archive: found ''"),
    "a negative offset": ("offset", 1, -512, r"row 1, column offset: found -512"),
    "no bytes": ("num_bytes", 1, 0, r"row 1, column num_bytes: found 0"),
    "an unknown format": ("format", 1, "gif", r"row 1, column format: found 'gif'"),
    "no width": ("width", 3, 0, r"row 3, column width: found 0"),
    "a short sum": ("sha256", 1, "abc", r"row 1, column sha256: found 'abc'"),
    "a gate outside val": ("gate", 3, True, r"row 3: found \{.*'split': 'test'.*'gate': True.*gate images are val"),
    "a split that leaves its gate": ("split", 2, "train", r"row 2: found .*gate images are val images"),
}


@pytest.mark.parametrize(("column", "row", "value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_manifest_is_found(column, row, value, message):
    frame = manifest()
    frame.loc[row, column] = value
    with pytest.raises(ContractError, match=message):
        check(frame, MANIFEST, "m.parquet")


REJECT_MUTATIONS = {
    "no reason": ("reason", 1, "", r"row 1, column reason: found ''"),
    "no key": ("key", 0, "", r"row 0, column key: found ''"),
    "an unknown split": ("split", 0, "dev", r"row 0, column split: found 'dev'"),
    "a negative label": ("label", 0, -1, r"row 0, column label: found -1"),
    "a negative offset": ("offset", 0, -1, r"row 0, column offset: found -1"),
    "a negative size": ("num_bytes", 3, -1, r"row 3, column num_bytes: found -1"),
}


@pytest.mark.parametrize(("column", "row", "value", "message"), REJECT_MUTATIONS.values(), ids=REJECT_MUTATIONS.keys())
def test_a_changed_rejects_table_is_found(column, row, value, message):
    frame = rejects()
    frame.loc[row, column] = value
    with pytest.raises(ContractError, match=message):
        check(frame, REJECTS, "r.parquet")


@pytest.mark.parametrize(("frame", "schema"), [(manifest(), MANIFEST), (rejects(), REJECTS)])
def test_other_columns_are_found(frame, schema):
    for changed in (frame.drop(columns="label"), frame.assign(note="x"), frame[frame.columns[::-1]]):
        with pytest.raises(ContractError, match="found or missing against the wanted columns"):
            check(changed, schema, "t.parquet")
    with pytest.raises(ContractError, match="column label: found 'int64', wanted dtype\\('int32'\\)"):
        check(frame.astype({"label": "int64"}), schema, "t.parquet")


def test_a_refused_image_cannot_be_refused_twice():
    frame = rejects()
    frame.loc[1, ["key", "archive", "offset"]] = frame.loc[0, ["key", "archive", "offset"]]
    with pytest.raises(ContractError, match="class/0"):
        check(frame, REJECTS, "r.parquet")
