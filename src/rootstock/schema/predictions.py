"""Predictions: one row an image and view protocol. All metrics are computed from this table, without a model."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import fullmatch
from rootstock.schema.manifest import KEY

VIEWS = ("center", "ten")  # one central crop; four corners and centre, each flipped as well


def _distribution(frame: pd.DataFrame) -> pd.Series:
    sums = np.array([np.sum(row, dtype=np.float64) for row in frame["probabilities"]])
    return pd.Series(np.abs(sums - 1) < 1e-4, index=frame.index)


def _best_is_predicted(frame: pd.DataFrame) -> pd.Series:
    best = [int(np.argmax(row)) for row in frame["probabilities"]]
    return (frame["predicted"] == best) & (frame["top5"].map(lambda row: int(row[0])) == frame["predicted"])


PREDICTIONS = pa.DataFrameSchema(
    {
        "split": pa.Column(str, pa.Check.isin(("val", "test"))),
        "view": pa.Column(str, pa.Check.isin(VIEWS)),
        "key": pa.Column(str, fullmatch(KEY)),
        "label": pa.Column("int32", pa.Check.ge(0)),
        "predicted": pa.Column("int32", pa.Check.ge(0)),
        "top5": pa.Column(object),  # int32 (min(5, K),), best first
        "probabilities": pa.Column(object),  # float32 (K,)
    },
    unique=["split", "view", "key"],
    checks=[
        pa.Check(_distribution, error="probabilities that sum to 1 (1e-4)"),
        pa.Check(_best_is_predicted, error="predicted = top5[0] = the most probable class"),
        pa.Check(
            lambda frame: frame["probabilities"].map(len).nunique() == 1, error="as many probabilities in every row"
        ),
        pa.Check(
            lambda frame: frame["label"] < frame["probabilities"].map(len), error="a label below the number of classes"
        ),
    ],
    strict=True,
    ordered=True,
    name="Predictions",
)
PREDICTIONS_ARROW = pyarrow.schema(
    [
        ("split", pyarrow.string()),
        ("view", pyarrow.string()),
        ("key", pyarrow.string()),
        ("label", pyarrow.int32()),
        ("predicted", pyarrow.int32()),
        ("top5", pyarrow.list_(pyarrow.int32())),
        ("probabilities", pyarrow.list_(pyarrow.float32())),
    ]
)
