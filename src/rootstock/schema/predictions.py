"""Predictions: one row an image and view protocol. All metrics are computed from this table, without a model."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import fullmatch
from rootstock.schema.names import KEY

VIEWS = ("center", "ten")  # one central crop; four corners and centre, each flipped as well


def _distribution(frame: pd.DataFrame) -> pd.Series:
    sums = np.array([np.sum(row, dtype=np.float64) for row in frame["probabilities"]])
    return pd.Series(np.abs(sums - 1) < 1e-4, index=frame.index)


def _in_range(frame: pd.DataFrame) -> pd.Series:
    return frame["probabilities"].map(lambda row: float(row.min()) >= 0 and float(row.max()) <= 1 + 1e-6)


def _ranked(frame: pd.DataFrame) -> pd.Series:
    """Whether the five are distinct, in falling order of probability, and nothing more probable is left out."""
    return pd.Series(
        [_is_ranking(best, row) for best, row in zip(frame["top5"], frame["probabilities"], strict=True)],
        index=frame.index,
    )


def _is_ranking(best: np.ndarray, probabilities: np.ndarray) -> bool:
    if len(best) != min(5, len(probabilities)) or len(set(best.tolist())) != len(best):
        return False
    if best.min() < 0 or best.max() >= len(probabilities):
        return False
    ranked = probabilities[best]
    return bool((ranked[:-1] >= ranked[1:]).all() and (probabilities > ranked[-1]).sum() < len(best))


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
        pa.Check(_in_range, error="probabilities between 0 and 1"),
        pa.Check(_ranked, error="top5: the most probable classes, ranked"),
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
