"""The contract of the shard index finds what was changed, in one row, across columns or across facts."""

import pandas as pd
import pytest

from rootstock.schema.contract import ContractError, check, iterate_table, write_table
from rootstock.schema.shards import INDEX, INDEX_ARROW, check_shards


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        {
            "key": f"class/{number}",
            "split": split,
            "label": number,
            "gate": split == "val",
            "shard": f"{split}-000000.tar",
            "offset": 512,
            "num_bytes": 10,
            "format": "jpeg",
            "sha256": f"{number:064x}",
        }
        for number, split in enumerate(("train", "train", "val", "test"))
    ]
    return pd.DataFrame(rows).astype({"label": "int32"})


def test_a_whole_index_is_written_and_read(frame, tmp_path):
    write_table(tmp_path / "index.parquet", [frame], INDEX, INDEX_ARROW, {})
    assert pd.concat(iterate_table(tmp_path / "index.parquet", INDEX)).equals(frame)


MUTATIONS = {
    "a doubled key": ("key", 1, "class/0", r"row 1, column key"),
    "a key with a dot": ("key", 0, "a.b", r"row 0, column key: found 'a.b'"),
    "a key with a line end": ("key", 0, "ab\n", r"row 0, column key"),
    "an unknown split": ("split", 0, "dev", r"row 0, column split: found 'dev'"),
    "a negative label": ("label", 2, -1, r"row 2, column label: found -1"),
    "a gate outside val": ("gate", 3, True, "gate images are val images"),
    "another split's shard": ("shard", 0, "val-000000.tar", "a shard of the sample's split"),
    "a shard outside": ("shard", 0, "../train-000000.tar", r"row 0, column shard"),
    "an offset inside the header": ("offset", 0, 100, r"row 0, column offset: found 100"),
    "no bytes": ("num_bytes", 1, 0, r"row 1, column num_bytes: found 0"),
    "an unknown format": ("format", 1, "gif", r"row 1, column format: found 'gif'"),
    "a short sum": ("sha256", 1, "abc", r"row 1, column sha256: found 'abc'"),
}


@pytest.mark.parametrize(("column", "row", "value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_index_is_found(frame, column, row, value, message):
    frame.loc[row, column] = value
    with pytest.raises(ContractError, match=message):
        check(frame, INDEX, "index.parquet")


def test_a_missing_column_is_found(frame):
    with pytest.raises(ContractError, match="'sha256'"):
        check(frame.drop(columns="sha256"), INDEX, "index.parquet")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train-000000.tar": 1}, "train-000000.tar: found 1 rows, wanted 2"),
        ({}, r"found rows of shards \[\], wanted \['train-000000.tar'\]"),
        ({"train-000000.tar": 2, "train-000001.tar": 1}, "found rows of shards .*000001"),
    ],
)
def test_counts_are_compared_with_the_facts(counts, message):
    check_shards({"train-000000.tar": 2}, {"train-000000.tar": {"num_samples": 2}}, "index.parquet")
    with pytest.raises(ContractError, match=message):
        check_shards(counts, {"train-000000.tar": {"num_samples": 2}}, "index.parquet")
