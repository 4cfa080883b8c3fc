"""ShardIndex: where each sample lies in the shards, and the sums by which truncation and bit rot are found."""

import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import ContractError, fullmatch
from rootstock.schema.names import FORMATS, KEY, SHA256, SPLITS

INDEX = pa.DataFrameSchema(
    {
        "key": pa.Column(str, fullmatch(KEY), unique=True),
        "split": pa.Column(str, pa.Check.isin(SPLITS)),
        "label": pa.Column("int32", pa.Check.ge(0)),
        "gate": pa.Column(bool),
        "shard": pa.Column(str, fullmatch(r"(train|val|test)-[0-9]{6}\.tar")),
        "offset": pa.Column("int64", pa.Check.ge(512)),  # of the image's first byte in the shard
        "num_bytes": pa.Column("int64", pa.Check.ge(1)),
        "format": pa.Column(str, pa.Check.isin(FORMATS)),
        "sha256": pa.Column(str, fullmatch(SHA256)),
    },
    checks=[
        pa.Check(
            lambda frame: frame["shard"].str.partition("-")[0] == frame["split"], error="a shard of the sample's split"
        ),
        pa.Check(lambda frame: ~frame["gate"] | (frame["split"] == "val"), error="gate images are val images"),
    ],
    strict=True,
    ordered=True,
    name="ShardIndex",
)
INDEX_ARROW = pyarrow.schema(
    [
        ("key", pyarrow.string()),
        ("split", pyarrow.string()),
        ("label", pyarrow.int32()),
        ("gate", pyarrow.bool_()),
        ("shard", pyarrow.string()),
        ("offset", pyarrow.int64()),
        ("num_bytes", pyarrow.int64()),
        ("format", pyarrow.string()),
        ("sha256", pyarrow.string()),
    ]
)


def check_shards(counts: dict[str, int], shards: dict[str, dict], file: object) -> None:
    """Compare the rows counted for each shard with the facts' `shards` (name -> sha256, num_samples, num_bytes).

    Raises:
        ContractError: a shard that only one of them knows, or another number of samples.
    """
    if set(counts) != set(shards):
        raise ContractError(f"{file}: found rows of shards {sorted(counts)}, wanted {sorted(shards)}")
    for name, count in counts.items():
        if count != shards[name]["num_samples"]:
            raise ContractError(f"{file}: {name}: found {count} rows, wanted {shards[name]['num_samples']}")
