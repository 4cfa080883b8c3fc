"""History: a training's curve, one row an epoch."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import ContractError, atomic, check

FINITE = pa.Check(lambda column: (column >= 0) & (column < float("inf")), error="a finite number >= 0")
HISTORY = pa.DataFrameSchema(
    {
        "epoch": pa.Column("int64", pa.Check.ge(1)),
        "step": pa.Column("int64", pa.Check.ge(1)),  # optimiser steps taken at the end of the epoch
        "lr": pa.Column(float, FINITE),  # at the epoch's last step
        "train_loss": pa.Column(float, FINITE),  # mean over the epoch's images, as trained (with augmentation)
        "train_top1": pa.Column(float, pa.Check.in_range(0, 1)),
        "val_loss": pa.Column(float, FINITE),
        "val_top1": pa.Column(float, pa.Check.in_range(0, 1)),
    },
    checks=[
        pa.Check(lambda frame: frame["epoch"] == np.arange(1, len(frame) + 1), error="epochs 1, 2, 3 …"),
        pa.Check(lambda frame: frame["step"].diff().fillna(1) > 0, error="steps that grow"),
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
    """Read and check a history.

    Raises:
        ContractError: naming file, row, column, found and wanted.
    """
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ContractError(f"{path} is not CSV with a header: {error}") from None
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ContractError(f"{path}: row {number}: found {len(row)} values, wanted {len(header)}")
    columns = {name: _numbers([row[place] for row in rows], name, path) for place, name in enumerate(header)}
    return check(pd.DataFrame(columns), HISTORY, path)


def _numbers(texts: list[str], name: str, path: Path) -> list:
    """Parse a column as Python does, exactly; how pandas rounds depends on its version."""
    if name not in HISTORY.columns:
        return texts
    kind = int if str(HISTORY.columns[name].dtype) == "int64" else float
    numbers = []
    for number, text in enumerate(texts):
        try:
            numbers.append(kind(text))
        except ValueError:
            raise ContractError(
                f"{path}: row {number}, column {name}: found {text!r}, wanted {kind.__name__}"
            ) from None
    return numbers
