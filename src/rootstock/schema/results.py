"""Results: docs/results/*.json, one measured table, a row a strategy over its seeds; documents are rendered from it."""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import ContractError, check, read_json, write_json
from rootstock.schema.predictions import VIEWS

ACCURACIES = ("mean_per_class", "top1")
PARTS = ("mean", "sd", "low", "high")  # over seeds; sd null for one seed, low and high then over its images

ROWS = pa.DataFrameSchema(
    {
        "strategy": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
        "split": pa.Column(str, pa.Check.isin(("val", "test"))),
        "view": pa.Column(str, pa.Check.isin(VIEWS)),
        "num_images": pa.Column("int64", pa.Check.ge(1)),
        "num_seeds": pa.Column("int64", pa.Check.ge(1)),
        "wall_seconds": pa.Column(float, pa.Check.gt(0)),  # of the strategy's fine-tunings together
        **{
            f"{name}.{part}": pa.Column(float, pa.Check.in_range(0, 1), nullable=part == "sd")
            for name in ACCURACIES
            for part in PARTS
        },
    },
    checks=[
        *(
            pa.Check(
                lambda frame, name=name: (
                    (frame[f"{name}.low"] <= frame[f"{name}.mean"]) & (frame[f"{name}.mean"] <= frame[f"{name}.high"])
                ),
                error=f"{name}.low <= {name}.mean <= {name}.high",
            )
            for name in ACCURACIES
        ),
        pa.Check(lambda frame: frame["num_images"].nunique() == 1, error="the same images for every strategy"),
    ],
    strict=True,
    ordered=True,
    name="Results",
)
ROW_KEYS = {"strategy", "seeds", "split", "view", "num_images", "wall_seconds", *ACCURACIES}
TEXTS = ("title", "command", "hardware", "commit")
KEYS = {*TEXTS, "wall_seconds", "pretrain_wall_seconds", "rows"}


def write(path: Path, value: dict) -> None:
    """Write a table of results after checking it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _checked(value, path))


def read(path: Path) -> dict:
    """Read and check a table of results.

    Raises:
        ContractError: naming file, row, key, value found and value wanted.
    """
    return _checked(read_json(path), path)


def _checked(value: dict, path: Path) -> dict:
    _keys(value, KEYS, path, "the file")
    for key in TEXTS:
        if not isinstance(value[key], str) or not value[key].strip():
            raise ContractError(f"{path}: {key}: found {value[key]!r}, wanted a text")
    rows = []
    for row in value["rows"]:
        _keys(row, ROW_KEYS, path, "a row")
        seeds = row["seeds"]
        plain = {key: row[key] for key in ("strategy", "split", "view", "num_images", "wall_seconds")}
        rows.append(plain | {"num_seeds": len(seeds)} | _flat(row, path))
    frame = pd.DataFrame(rows, columns=list(ROWS.columns))
    check(frame.astype({f"{name}.sd": float for name in ACCURACIES}), ROWS, path)
    longest = sum(row["wall_seconds"] for row in value["rows"]) + value["pretrain_wall_seconds"]
    if not value["wall_seconds"] + 1e-6 >= longest > 0:
        raise ContractError(
            f"{path}: wall_seconds: found {value['wall_seconds']}, wanted at least {longest}, its parts"
        )
    return value


def _flat(row: dict, path: Path) -> dict:
    flat = {}
    for name in ACCURACIES:
        where = f"{row['strategy']}.{name}"
        _keys(row[name], {*PARTS, "values"}, path, where)
        values = row[name]["values"]
        if len(values) != len(row["seeds"]) or len(set(row["seeds"])) != len(values):
            raise ContractError(f"{path}: {where}.values: found {values}, wanted one for each of seeds {row['seeds']}")
        if abs(sum(values) / len(values) - row[name]["mean"]) > 1e-9:
            raise ContractError(f"{path}: {where}.mean: found {row[name]['mean']}, wanted the mean of {values}")
        if (row[name]["sd"] is None) != (len(values) == 1):
            raise ContractError(f"{path}: {where}.sd: found {row[name]['sd']}, wanted null exactly for one seed")
        flat |= {f"{name}.{part}": row[name][part] for part in PARTS}
    return flat


def _keys(value: object, wanted: set[str], path: Path, where: str) -> None:
    if not isinstance(value, dict) or set(value) != wanted:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: {where}: found keys {found}, wanted {sorted(wanted)}")
