"""The contract of the predictions table finds what was changed, in a cell, across columns and across rows."""

import numpy as np
import pandas as pd
import pytest

from rootstock.schema.contract import ContractError, check, read_table, write_table
from rootstock.schema.predictions import PREDICTIONS, PREDICTIONS_ARROW


def table() -> pd.DataFrame:
    probabilities = [np.array(row, np.float32) for row in ([0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3])]
    return pd.DataFrame(
        {
            "split": pd.Series(["val", "val", "test"], dtype=str),
            "view": pd.Series(["center", "ten", "center"], dtype=str),
            "key": pd.Series(["a/1", "a/1", "b/2"], dtype=str),
            "label": np.array([0, 0, 2], np.int32),
            "predicted": np.array([0, 2, 1], np.int32),
            "top5": [np.array(row, np.int32) for row in ([0, 1, 2], [2, 1, 0], [1, 2, 0])],
            "probabilities": probabilities,
        }
    )


def test_a_whole_table_is_written_and_read(tmp_path):
    write_table(tmp_path / "p.parquet", [table()], PREDICTIONS, PREDICTIONS_ARROW, {})
    found = read_table(tmp_path / "p.parquet", PREDICTIONS)
    pd.testing.assert_frame_equal(found, table())
    assert found["probabilities"].iloc[0].dtype == np.float32


MUTATIONS = {
    "a split that is not judged": ("split", 0, "train", r"row 0, column split: found 'train'"),
    "an unknown view": ("view", 1, "five", r"row 1, column view: found 'five'"),
    "a key with a dot": ("key", 2, "b.jpg", r"row 2, column key: found 'b.jpg'"),
    "a negative label": ("label", 0, -1, r"row 0, column label: found -1"),
    "a negative prediction": ("predicted", 0, -1, r"row 0, column predicted: found -1"),
    "an image twice in a view": ("view", 1, "center", r"found .*'a/1'"),
    "a prediction that is not the best": ("predicted", 0, 1, r"row 0: .*predicted = top5\[0\] = the most probable"),
    "a label of no class": ("label", 2, 3, r"row 2: .*a label below the number of classes"),
}


@pytest.mark.parametrize(("column", "row", "value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_table_is_found(column, row, value, message):
    frame = table()
    frame.loc[row, column] = value
    with pytest.raises(ContractError, match=message):
        check(frame, PREDICTIONS, "p.parquet")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("probabilities", [0.7, 0.2, 0.2], "probabilities that sum to 1"),
        ("probabilities", [0.7, 0.3], "as many probabilities in every row"),
        ("probabilities", [0.2, 0.7, 0.1], "the most probable class"),
        ("probabilities", [0.9, 0.4, -0.3], "between 0 and 1"),
        ("probabilities", [0.7, float("nan"), 0.3], "sum to 1"),
        ("top5", [1, 0, 2], "the most probable class"),
        ("top5", [0, 2, 1], "ranked"),
        ("top5", [0, 1], "ranked"),
        ("top5", [0, 1, 1], "ranked"),
    ],
)
def test_a_changed_list_is_found(column, value, message):
    frame = table()
    kind = frame[column].iloc[0].dtype
    frame[column] = pd.Series([np.array(value, kind), *frame[column].iloc[1:]], dtype=object)
    with pytest.raises(ContractError, match=message):
        check(frame, PREDICTIONS, "p.parquet")
