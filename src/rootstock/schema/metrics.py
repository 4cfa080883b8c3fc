"""Metrics: metrics.json of one replica, {split: {view: {num_images, …, top1: {value, low, high}, …}}}."""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import ContractError, check, read_json, write_json
from rootstock.schema.predictions import VIEWS

ACCURACIES = ("top1", "top5", "mean_per_class")
PLAIN = ("num_images", "num_classes", "log_loss", "ece")

METRICS = pa.DataFrameSchema(
    {
        "split": pa.Column(str, pa.Check.isin(("val", "test"))),
        "view": pa.Column(str, pa.Check.isin(VIEWS)),
        "num_images": pa.Column("int64", pa.Check.ge(1)),
        "num_classes": pa.Column("int64", pa.Check.ge(1)),  # that have an image in the split
        "log_loss": pa.Column(float, pa.Check.in_range(0, 88)),  # nats an image; probabilities are cut at 1.2e-38
        "ece": pa.Column(float, pa.Check.in_range(0, 1)),  # expected calibration error, 15 bins
        **{
            f"{name}.{part}": pa.Column(float, pa.Check.in_range(0, 1))
            for name in ACCURACIES
            for part in ("value", "low", "high")
        },
    },
    unique=["split", "view"],
    checks=[
        *(
            pa.Check(
                lambda frame, name=name: (
                    (frame[f"{name}.low"] <= frame[f"{name}.value"]) & (frame[f"{name}.value"] <= frame[f"{name}.high"])
                ),
                error=f"{name}.low <= {name}.value <= {name}.high",
            )
            for name in ACCURACIES
        ),
        pa.Check(lambda frame: frame["top1.value"] <= frame["top5.value"], error="top1 <= top5"),
        pa.Check(lambda frame: frame["num_classes"] <= frame["num_images"], error="num_classes <= num_images"),
        pa.Check(
            lambda frame: frame.groupby("split")["num_images"].transform("nunique") == 1,
            error="as many images in every view of a split",
        ),
    ],
    strict=True,
    ordered=True,
    name="Metrics",
)


def write(path: Path, value: dict) -> None:
    """Write metrics.json after checking it."""
    write_json(path, _checked(value, path))


def read(path: Path) -> dict:
    """Read and check metrics.json.

    Raises:
        ContractError: naming file, split and view, metric, value found and value wanted.
    """
    return _checked(read_json(path), path)


def _checked(value: dict, path: Path) -> dict:
    rows = []
    for split, views in _mapping(value, path, "the file").items():
        for view, metrics in _mapping(views, path, split).items():
            where = f"{split}.{view}"
            _keys(_mapping(metrics, path, where), {*PLAIN, *ACCURACIES}, path, where)
            row = {"split": split, "view": view, **{name: metrics[name] for name in PLAIN}}
            for name in ACCURACIES:
                _keys(
                    _mapping(metrics[name], path, f"{where}.{name}"), {"value", "low", "high"}, path, f"{where}.{name}"
                )
                row |= {f"{name}.{part}": number for part, number in metrics[name].items()}
            rows.append(row)
    if not rows:
        raise ContractError(f"{path}: found no metrics, wanted at least one split with one view")
    check(pd.DataFrame(rows, columns=list(METRICS.columns)), METRICS, path)
    return value


def _mapping(value: object, path: Path, where: str) -> dict:
    if not isinstance(value, dict):
        raise ContractError(f"{path}: {where}: found {type(value).__name__}, wanted a mapping")
    return value


def _keys(value: dict, wanted: set[str], path: Path, where: str) -> None:
    if set(value) != wanted:
        raise ContractError(f"{path}: {where}: found keys {sorted(value)}, wanted {sorted(wanted)}")
