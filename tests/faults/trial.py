"""One project of a trial: begin `dvc repro` in it, look at its processes and traces, judge what it holds at the end."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import small_project

from rootstock.ops import dvc_lock

DATA = ("stats@target", "shards@target")
TRAINING = ("evaluate@full-0",)
WITNESS = Path(__file__).resolve().parent / "witness"
RUN_FILES = "reports/runs/"  # run ids and times: other in each run
SECONDS = 600.0  # a command that takes longer hangs
LEAVING_SECONDS = 20.0  # a fork server notices a moment later that its starter is gone


class Note(NamedTuple):
    """A line of the witness."""

    time: float
    stage: str
    owner: int
    event: str
    path: str


class Project:
    """A copy of the configured, not yet reproduced project."""

    def __init__(self, folder: Path, *, targets: tuple[str, ...], shell: str) -> None:
        self.folder = folder
        self.targets = targets
        self.shell = shell
        self._output = folder.with_suffix(".log")
        self.trace = folder.with_suffix(".trace")
        self._environment = small_project.environment(
            PYTHONPATH=os.pathsep.join([str(WITNESS), str(folder / "src")]),  # its own code, not the one under work
            PYTHONDONTWRITEBYTECODE="1",
            FAULTS_TRACE=str(self.trace),
            ROOTSTOCK_CHECKPOINT_SECONDS="0",
            SHELL=shell,
        )

    def begin(self, *command: str, **changes: str) -> subprocess.Popen:
        """Start a command in a session of its own, its environment changed; what it says goes to the log."""
        with open(self._output, "a") as log:
            print(f"--- {time.time():.2f} {' '.join(command)}", file=log, flush=True)
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environment | changes, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def begin_repro(self) -> subprocess.Popen:
        """Start `dvc repro` of the targets."""
        return self.begin("dvc", "repro", *self.targets)

    def repro(self) -> tuple[int, str]:
        """Reproduce the targets; return the status and what was said."""
        return self.run("dvc", "repro", *self.targets)

    def rootstock(self, *arguments: str) -> str:
        """Run a `rootstock` command of the project's own code, which must succeed; return what it said."""
        status, said = self.run(sys.executable, "-m", "rootstock.cli", *arguments)
        assert status == 0, said
        return said

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command to its end; return its status and what it said."""
        status = self.begin(*command).wait(timeout=SECONDS)
        return status, self.said().rpartition("\n--- ")[2].partition("\n")[2]

    def said(self) -> str:
        """Return all that the project's commands said."""
        return self._output.read_text()

    def notes(self) -> list[Note]:
        """Return what the witnesses have noted so far."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [Note(*json.loads(line)) for line in lines]

    def living_stage(self) -> Note | None:
        """Return the start of the stage process that lives now, if one does."""
        starts = [note for note in self.notes() if note.event == "start"]
        return starts[-1] if starts and is_alive(starts[-1].owner) else None

    def survivors(self) -> list[str]:
        """Return the processes that still run for this project and do not end by themselves soon."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FAULTS_TRACE") == str(self.trace) and is_alive(process.pid):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
            except psutil.Error:
                continue
        return found

    def remove(self) -> None:
        """Delete the project; its log stays."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.trace.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make(repository: Path, folder: Path, *, epochs: int) -> Path:
    """Make the configured project that trials copy."""
    small_project.clone(repository, folder)
    small_project.draw(folder / "images", num_images={"train": 40, "val": 20, "test": 20})
    overrides = [f"{stage}.training.epochs={epochs}" for stage in ("pretrain", "finetune.full")]
    small_project.rootstock(folder, "configure", f"data={small_project.CHOICE}", *overrides)
    small_project.commit(folder, "Begin")
    return folder


def outcome(project: Project) -> dict:
    """Return all that must be the same after any fault: records of dvc.lock, and each run's metrics."""
    records = dvc_lock.current(project.folder)
    return {
        "records": {
            name: [
                record.deps,
                record.params,
                {path: md5 for path, md5 in record.outs.items() if RUN_FILES not in path},
            ]
            for name, record in records.items()
        },
        "metrics": {path.stem: _metrics(project, path) for path in (project.folder / RUN_FILES).glob("*.json")},
    }


def _metrics(project: Project, run_file: Path) -> list:
    run_id = json.loads(run_file.read_text())["run_id"]
    question = "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT LIKE 'system/%' ORDER BY 1, 2, 3"
    return _query(project, question, run_id)


def _query(project: Project, question: str, *values: str) -> list:
    if not (project.folder / "mlflow.db").exists():  # the data stages make none
        return []
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        rows = store.execute(question, values).fetchall()
    store.close()
    return rows


def runs(project: Project) -> dict[str, list[str]]:
    """Return the statuses of each name's MLflow runs."""
    found: dict[str, list[str]] = {}
    for name, status in _query(project, "SELECT name, status FROM runs ORDER BY start_time"):
        found.setdefault(name, []).append(status)
    return found


def problems(project: Project, wanted: dict) -> list[str]:
    """Return everything that is not as after an undisturbed reproduction; nothing is wanted."""
    found = [f"survived: {line}" for line in project.survivors()]
    status, said = project.run("dvc", "status", "--with-deps", *project.targets)
    if status != 0 or "up to date" not in said:
        found.append(f"dvc status: {said[-500:]}")
    got = outcome(project)
    for kind, values in wanted.items():
        found += [f"{kind} of {name} differ" for name in values if got[kind].get(name) != values[name]]
    found += [f"run {name}: {statuses}" for name, statuses in runs(project).items() if "RUNNING" in statuses]
    question = "SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY 1, 2, 3 HAVING count(*) > 1"
    found += [f"doubled metric: {row}" for row in _query(project, question)]
    states = project.folder / ".rootstock"
    left = [path for name in ("training", "evaluation", "runs") for path in states.glob(f"{name}/*")]
    found += [f"left over: {path.relative_to(project.folder)}" for path in left if path.suffix != ".lock"]
    stray = [path for name in ("data", "models", "reports") for path in (project.folder / name).rglob(".*.tmp")]
    found += [f"left over: {path.relative_to(project.folder)}" for path in stray]
    return found + second_writers(project.notes())


def second_writers(notes: list[Note]) -> list[str]:
    """Return the processes that still wrote for a stage after a later one had begun to, with the first such file."""
    found: dict[tuple[str, int, int], str] = {}
    latest: dict[str, list[int]] = {}  # stage -> its writing processes, in the order of their first write
    for note in notes:
        if note.event == "start":
            continue
        owners = latest.setdefault(note.stage, [])
        if note.owner not in owners:
            owners.append(note.owner)
        elif note.owner != owners[-1]:
            found.setdefault((note.stage, note.owner, owners[-1]), note.path)
    return [
        f"second writer: {old} of {stage} wrote {path} after {new} had begun"
        for (stage, old, new), path in found.items()
    ]
