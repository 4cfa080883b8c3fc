"""Manifest: one row an accepted image, its bytes located in an archive. Rejects: one row a refused image, with why."""

import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import fullmatch
from rootstock.schema.names import FORMATS, KEY, SHA256, SPLITS

MANIFEST = pa.DataFrameSchema(
    {
        "key": pa.Column(str, fullmatch(KEY), unique=True),
        "split": pa.Column(str, pa.Check.isin(SPLITS)),
        "label": pa.Column("int32", pa.Check.ge(0)),  # index into the facts' class_names
        "archive": pa.Column(str, pa.Check.str_length(min_value=1)),  # a name in source.json
        "offset": pa.Column("int64", pa.Check.ge(0)),  # of the image's first byte in the archive
        "num_bytes": pa.Column("int64", pa.Check.ge(1)),
        "format": pa.Column(str, pa.Check.isin(FORMATS)),
        "width": pa.Column("int32", pa.Check.ge(1)),  # pixels, as decoded (after EXIF rotation)
        "height": pa.Column("int32", pa.Check.ge(1)),
        "sha256": pa.Column(str, fullmatch(SHA256)),  # of the image's bytes
        "gate": pa.Column(bool),  # a val image kept for promotion when training on train and val
    },
    checks=pa.Check(lambda frame: ~frame["gate"] | (frame["split"] == "val"), error="gate images are val images"),
    strict=True,
    ordered=True,
    name="Manifest",
)
MANIFEST_ARROW = pyarrow.schema(
    [
        ("key", pyarrow.string()),
        ("split", pyarrow.string()),
        ("label", pyarrow.int32()),
        ("archive", pyarrow.string()),
        ("offset", pyarrow.int64()),
        ("num_bytes", pyarrow.int64()),
        ("format", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("sha256", pyarrow.string()),
        ("gate", pyarrow.bool_()),
    ]
)

REJECTS = pa.DataFrameSchema(
    {
        "key": pa.Column(str, fullmatch(KEY), unique=True),
        "split": pa.Column(str, pa.Check.isin(SPLITS)),
        "label": pa.Column("int32", pa.Check.ge(0)),
        "archive": pa.Column(str, pa.Check.str_length(min_value=1)),
        "offset": pa.Column("int64", pa.Check.ge(0)),
        "num_bytes": pa.Column("int64", pa.Check.ge(0)),
        "reason": pa.Column(str, pa.Check.str_length(min_value=1)),
    },
    strict=True,
    ordered=True,
    name="Rejects",
)
REJECTS_ARROW = pyarrow.schema(
    [
        ("key", pyarrow.string()),
        ("split", pyarrow.string()),
        ("label", pyarrow.int32()),
        ("archive", pyarrow.string()),
        ("offset", pyarrow.int64()),
        ("num_bytes", pyarrow.int64()),
        ("reason", pyarrow.string()),
    ]
)
