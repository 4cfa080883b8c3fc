"""Write and read reports/runs/*.json: what must not enter a result's hash, and on which only the report depends."""

from datetime import UTC, datetime
from pathlib import Path

from rootstock.schema import run as schema


def write(
    path: Path,
    *,
    stage: str,
    names: tuple[str | int, ...],
    run_id: str | None,
    started: float,
    finished: float,
    wall_seconds: float,
    seconds: dict[str, float],
    images_per_second: float,
    energy_joules: float | None,
    attempts: int,
    hardware: dict,
    environment: dict,
) -> None:
    """Write the facts of one training or evaluation; works just as well when tracking failed.

    Args:
        path: `layout.run(stage, *names)`.
        run_id: MLflow's; None when the store was never reached.
        started: beginning of the last attempt, seconds since 1970.
        finished: its end.
        wall_seconds: of all attempts together, > 0.
        seconds: where they went: part -> seconds; parts may overlap.
        energy_joules: of the GPUs in the last attempt; None without a GPU that counts.
        attempts: 1 when never interrupted.
        hardware: `hardware.describe()` and the device used.
        environment: `fingerprint.environment()`.

    Raises:
        ContractError: a value breaks schema/run.
    """
    value = {
        "stage": stage,
        "names": list(names),
        "run_id": run_id,
        "started": _text(started),
        "finished": _text(finished),
        "wall_seconds": float(wall_seconds),
        "seconds": seconds,
        "images_per_second": float(images_per_second),
        "energy_joules": energy_joules,
        "attempts": attempts,
        "hardware": hardware,
        "environment": environment,
    }
    schema.write(path, value)


def read(path: Path) -> dict:
    """Read and check a run's file.

    Raises:
        ContractError: naming file, key, value found and value wanted.
    """
    return schema.read(path)


def _text(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
