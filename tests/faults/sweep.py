"""Eight queued experiments at once on one SQLite store: all land in it, whole; the workspace stays as it was."""

import json
import re
import sqlite3
import sys
import time
from pathlib import Path

import small_project

# none equals the baseline, whose results would come from the cache, without a run
SWEEP = ("finetune.full.training.optim.lr=0.01,0.03,0.05,0.1", "finetune.full.training.epochs=2,3")
NUM_EXPERIMENTS = 8
NAME = "lr"
POLL_SECONDS, WAIT_SECONDS = 5.0, 3600.0
REPLICAS = ("full-0", "full-1")


def measure(*, repository: Path, folder: Path, jobs: int) -> dict:
    """Queue the sweep, run it, and return what the store and the workspace hold.

    Args:
        jobs: experiments side by side.
    """
    project = small_project.build(repository, folder / "sweep")
    params = (project / "params.yaml").read_bytes()
    small_project.rootstock(project, "experiment", *SWEEP, "--queue", "--name", NAME)
    began = time.monotonic()
    small_project.run(project, "dvc", "queue", "start", "--jobs", str(jobs))
    while re.search(r"Running|Queued", status := small_project.run(project, "dvc", "queue", "status")):
        assert time.monotonic() - began < WAIT_SECONDS, status
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - began
    found = [line for line in status.splitlines() if "Failed" in line]
    found += _missing(project)
    if (project / "params.yaml").read_bytes() != params:
        found.append("params.yaml of the workspace changed")
    found += [f"a store of its own: {path}" for path in (project / ".dvc/tmp").rglob("mlflow.db")]
    found += [f"unsent: {path.name}" for path in (project / ".rootstock/runs").iterdir()]
    found += _adopt(project)
    return {"num_experiments": NUM_EXPERIMENTS, "jobs": jobs, "seconds": round(seconds, 1), "problems": found}


def _query(project: Path, question: str) -> list:
    with sqlite3.connect(project / "mlflow.db") as store:
        rows = store.execute(question).fetchall()
    store.close()
    return rows


def _missing(project: Path) -> list[str]:
    """Return what is not as it must be: each replica's training and evaluation FINISHED, every point once."""
    tag = "(SELECT value FROM tags t WHERE t.run_uuid = runs.run_uuid AND key = 'dvc.experiment')"
    rows = _query(project, f"SELECT {tag}, name, status, run_uuid FROM runs")
    found = [f"{experiment}: {name} is {status}" for experiment, name, status, _ in rows if status != "FINISHED"]
    of = {(experiment, name): run for experiment, name, _, run in rows}
    for number in range(1, NUM_EXPERIMENTS + 1):
        for replica in REPLICAS:
            experiment = f"{NAME}-{number}"
            names = [(experiment, f"{experiment} {stage}-{replica}") for stage in ("finetune", "evaluate")]
            found += [f"no run {name}" for name in names if name not in of]
            if names[0] in of:
                found += _incomplete(project, of[names[0]])
    if len(of) != len(rows):
        found.append(f"{len(rows)} runs of {len(of)} names")
    return found


def _incomplete(project: Path, run: str) -> list[str]:
    ((epochs,),) = _query(project, f"SELECT value FROM params WHERE run_uuid = '{run}' AND key = 'training.epochs'")
    question = f"SELECT key, count(*) FROM metrics WHERE run_uuid = '{run}' AND key NOT LIKE 'system/%' GROUP BY 1"
    counts = dict(_query(project, question))
    wanted = dict.fromkeys(("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1"), int(epochs))
    return [] if counts == wanted else [f"run {run}: points {counts}, wanted {wanted}"]


def _adopt(project: Path) -> list[str]:
    """Adopt an experiment: what it made is applied, so nothing may be trained again."""
    before = len(_query(project, "SELECT * FROM runs"))
    small_project.run(project, "dvc", "exp", "apply", f"{NAME}-1")
    values = [override.split(",")[0] for override in SWEEP]
    small_project.rootstock(project, "configure", f"data={small_project.CHOICE}", *values)
    small_project.run(project, "dvc", "repro")
    after = len(_query(project, "SELECT * FROM runs"))
    return [] if after == before else [f"adopting an experiment made {after - before} new runs"]


def main() -> None:
    """Run this part alone: python -m faults.sweep REPOSITORY FOLDER JOBS."""
    repository, folder, jobs = sys.argv[1:]
    print(json.dumps(measure(repository=Path(repository), folder=Path(folder), jobs=int(jobs)), indent=1))


if __name__ == "__main__":
    main()
