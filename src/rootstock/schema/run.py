"""Run: reports/runs/*.json, run id, timings, hardware and software of one training or evaluation."""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from rootstock.schema.contract import ContractError, check, fullmatch, read_json, write_json

TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"  # UTC; as text in the order of time
PLAIN = pa.DataFrameSchema(
    {
        "stage": pa.Column(str, pa.Check.isin(("pretrain", "finetune", "evaluate"))),
        "run_id": pa.Column(str, pa.Check.str_length(min_value=1), nullable=True),  # null: the store was never reached
        "attempts": pa.Column("int64", pa.Check.ge(1)),  # 1: never interrupted
        "started": pa.Column(str, fullmatch(TIME)),
        "finished": pa.Column(str, fullmatch(TIME)),
        "wall_seconds": pa.Column(float, pa.Check.gt(0)),  # of all attempts together
        "images_per_second": pa.Column(float, pa.Check.ge(0)),  # over wall_seconds
        "energy_joules": pa.Column(float, pa.Check.ge(0), nullable=True),  # of the GPUs; null: no GPU that counts
    },
    checks=pa.Check(lambda frame: frame["started"] <= frame["finished"], error="started <= finished"),
    strict=True,
    ordered=True,
    name="Run",
)
KEYS = {*PLAIN.columns, "names", "seconds", "hardware", "environment"}
HARDWARE = {"device", "cpu", "num_cores", "memory_gb", "instruction_sets", "cpu_capability", "num_threads", "gpus"}
ENVIRONMENT = {
    "python", "platform", "rootstock", "torch", "cuda", "mlflow", "lock_sha256", "git_revision", "git_dirty",
}  # fmt: skip


def write(path: Path, value: dict) -> None:
    """Write a run's file after checking it."""
    write_json(path, _checked(value, path))


def read(path: Path) -> dict:
    """Read and check a run's file.

    Raises:
        ContractError: naming file, key, value found and value wanted.
    """
    return _checked(read_json(path), path)


def _checked(value: dict, path: Path) -> dict:
    if not isinstance(value, dict) or set(value) != KEYS:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: found keys {found}, wanted {sorted(KEYS)}")
    row = {name: value[name] for name in PLAIN.columns}
    # a column of one null has no type of its own
    nullable = {"run_id": "str" if row["run_id"] is None else None, "energy_joules": float}
    frame = pd.DataFrame([row]).astype({name: dtype for name, dtype in nullable.items() if dtype and row[name] is None})
    check(frame, PLAIN, path)
    _check_nested(value, path)
    return value


def _check_nested(value: dict, path: Path) -> None:
    if len(value["names"]) != (0 if value["stage"] == "pretrain" else 2):
        raise ContractError(f"{path}: names: found {value['names']}, wanted strategy and seed, for pretrain nothing")
    for key, wanted in (("hardware", HARDWARE), ("environment", ENVIRONMENT)):
        if not isinstance(value[key], dict) or not wanted <= set(value[key]):
            raise ContractError(f"{path}: {key}: found {value[key]}, wanted a mapping with {sorted(wanted)}")
    for part, seconds in value["seconds"].items():
        # both come from one monotonic clock: a part cannot be longer than the whole
        if not 0 <= seconds <= value["wall_seconds"] + 1e-6:
            raise ContractError(
                f"{path}: seconds.{part}: found {seconds}, wanted 0 to {value['wall_seconds']} (the whole)"
            )
    if value["energy_joules"] is not None and not value["hardware"]["gpus"]:
        raise ContractError(f"{path}: energy_joules: found {value['energy_joules']} without a GPU, wanted null")
