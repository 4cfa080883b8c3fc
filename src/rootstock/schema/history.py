"""History: a training's curve, one row an epoch."""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import atomic, check

HISTORY = pa.DataFrameSchema(
    {
        "epoch": pa.Column("int64", pa.Check.ge(1)),
        "step": pa.Column("int64", pa.Check.ge(1)),  # optimiser steps taken at the end of the epoch
        "lr": pa.Column(float, pa.Check.ge(0)),  # at the epoch's last step
        "train_loss": pa.Column(float, pa.Check.ge(0)),  # mean over the epoch's images, as trained (with augmentation)
        "train_top1": pa.Column(float, pa.Check.in_range(0, 1)),
        "val_loss": pa.Column(float, pa.Check.ge(0)),
        "val_top1": pa.Column(float, pa.Check.in_range(0, 1)),
    },
    checks=[
        pa.Check(lambda frame: list(frame["epoch"]) == list(range(1, len(frame) + 1)), error="epochs 1, 2, 3 …"),
        pa.Check(lambda frame: frame["step"].is_monotonic_increasing, error="steps that grow"),
    ],
    strict=True,
    ordered=True,
    name="History",
)


def write(path: Path, rows: list[dict]) -> None:
    """Write the rows as CSV; floats in their shortest exact form, so equal histories give equal bytes."""
    frame = check(pd.DataFrame(rows, columns=list(HISTORY.columns)), HISTORY, path)
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """Read and check a history."""
    frame = pd.read_csv(path, float_precision="round_trip")
    floats = {
        name: float for name, column in HISTORY.columns.items() if str(column.dtype) == "float64" and name in frame
    }
    return check(frame.astype(floats), HISTORY, path)
