"""Selection: the replicas that were compared on validation, and the one chosen."""

from pathlib import Path

import pandera.pandas as pa

from rootstock.schema.contract import ContractError, check_rows, read_json, write_json
from rootstock.schema.predictions import VIEWS

CANDIDATES = pa.DataFrameSchema(
    {
        "strategy": pa.Column(str, pa.Check.str_length(min_value=1)),
        "seed": pa.Column("int64", pa.Check.ge(0)),
        "num_images": pa.Column("int64", pa.Check.ge(1)),
        "value": pa.Column(float, pa.Check.in_range(0, 1)),  # of `metric` on `split`
    },
    unique=["strategy", "seed"],
    strict=True,
    ordered=True,
    name="Selection",
)
METRICS = ("top1", "mean_per_class")
KEYS = {"candidates", "metric", "selected", "split", "view"}


def write(path: Path, value: dict) -> None:
    """Write challenger.json after checking it."""
    write_json(path, _checked(value, path))


def read(path: Path) -> dict:
    """Read and check challenger.json: metric, split, view, candidates, selected (strategy, seed)."""
    return _checked(read_json(path), path)


def _checked(value: dict, path: Path) -> dict:
    if not isinstance(value, dict) or set(value) != KEYS:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: found keys {found}, wanted {sorted(KEYS)}")
    frame = check_rows(value["candidates"], CANDIDATES, path, where="candidates")
    for name, allowed in (("metric", METRICS), ("view", VIEWS)):
        if value[name] not in allowed:
            raise ContractError(f"{path}: {name}: found {value[name]!r}, wanted one of {list(allowed)}")
    if value["split"] != "val":
        raise ContractError(f"{path}: split: found {value['split']!r}, wanted 'val': test never decides anything")
    selected = value["selected"]
    if not isinstance(selected, dict) or set(selected) != {"seed", "strategy"}:
        raise ContractError(f"{path}: selected: found {selected!r}, wanted strategy and seed")
    rows = frame[(frame["strategy"] == selected["strategy"]) & (frame["seed"] == selected["seed"])]
    if len(rows) != 1:
        raise ContractError(f"{path}: selected: found {selected}, wanted one of the candidates")
    if rows["value"].iloc[0] < frame["value"].max():
        raise ContractError(f"{path}: selected: found value {rows['value'].iloc[0]}, wanted {frame['value'].max()}")
    return value
