"""Duplicates: one row an image that shows the same as another one of another split or under another label."""

import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import fullmatch
from rootstock.schema.names import KEY, SPLITS

KINDS = ("identical", "near")  # the same bytes; the same picture in other bytes

DUPLICATES = pa.DataFrameSchema(
    {
        "kind": pa.Column(str, pa.Check.isin(KINDS)),
        "key": pa.Column(str, fullmatch(KEY), unique=True),
        "split": pa.Column(str, pa.Check.isin(SPLITS)),
        "label": pa.Column("int32", pa.Check.ge(0)),
        "other_key": pa.Column(str, fullmatch(KEY)),  # test before val before train, or earlier in the collection
        "other_split": pa.Column(str, pa.Check.isin(SPLITS)),
        "other_label": pa.Column("int32", pa.Check.ge(0)),
        "distance": pa.Column("int32", pa.Check.in_range(0, 64)),  # bits between the hashes
        "mirrored": pa.Column(bool),
    },
    checks=[
        pa.Check(
            lambda frame: (frame["split"] != frame["other_split"]) | (frame["label"] != frame["other_label"]),
            error="two splits or two labels",
        ),
        pa.Check(
            lambda frame: (frame["kind"] == "near") | ((frame["distance"] == 0) & ~frame["mirrored"]),
            error="identical images have distance 0 and are not mirrored",
        ),
        pa.Check(lambda frame: frame["key"] != frame["other_key"], error="two images"),
    ],
    strict=True,
    ordered=True,
    name="Duplicates",
)
DUPLICATES_ARROW = pyarrow.schema(
    [
        ("kind", pyarrow.string()),
        ("key", pyarrow.string()),
        ("split", pyarrow.string()),
        ("label", pyarrow.int32()),
        ("other_key", pyarrow.string()),
        ("other_split", pyarrow.string()),
        ("other_label", pyarrow.int32()),
        ("distance", pyarrow.int32()),
        ("mirrored", pyarrow.bool_()),
    ]
)
