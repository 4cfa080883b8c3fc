"""The contract of duplicates finds what was changed."""

import pandas as pd
import pytest

from rootstock.schema.contract import ContractError, check, read_table, write_table
from rootstock.schema.duplicates import DUPLICATES, DUPLICATES_ARROW


def duplicates() -> pd.DataFrame:
    rows = [
        ("identical", "a/1", "train", 0, "a/2", "test", 0, 0, False),
        ("near", "a/3", "train", 0, "b/1", "train", 1, 7, True),
    ]
    frame = pd.DataFrame(rows, columns=list(DUPLICATES.columns))
    return frame.astype({"label": "int32", "other_label": "int32", "distance": "int32"})


def test_a_whole_table_is_written_and_read(tmp_path):
    write_table(tmp_path / "t.parquet", [duplicates()], DUPLICATES, DUPLICATES_ARROW, {})
    assert read_table(tmp_path / "t.parquet", DUPLICATES).equals(duplicates())
    assert list(DUPLICATES_ARROW.names) == list(DUPLICATES.columns)
    write_table(tmp_path / "empty.parquet", [], DUPLICATES, DUPLICATES_ARROW, {})
    assert len(read_table(tmp_path / "empty.parquet", DUPLICATES)) == 0


MUTATIONS = {
    "an unknown kind": ("kind", 0, "equal", "row 0, column kind: found 'equal'"),
    "an image twice": ("key", 1, "a/1", "row 1, column key: found 'a/1'"),
    "no pair": ("other_key", 0, "a/1", "row 0: found .*two images"),
    "one place": ("other_split", 0, "train", "row 0: found .*two splits or two labels"),
    "one label": ("other_label", 1, 0, "row 1: found .*two splits or two labels"),
    "far": ("distance", 1, 65, "row 1, column distance: found 65"),
    "identical, yet apart": ("distance", 0, 1, "row 0: found .*distance 0"),
    "identical, yet mirrored": ("mirrored", 0, True, "row 0: found .*not mirrored"),
}


@pytest.mark.parametrize(("column", "row", "value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_table_is_found(column, row, value, message):
    frame = duplicates()
    frame.loc[row, column] = value
    with pytest.raises(ContractError, match=message):
        check(frame, DUPLICATES, "d.parquet")
