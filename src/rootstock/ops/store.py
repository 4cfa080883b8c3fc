"""The door to MLflow: one run found or made by its token, fed with a journal's lines, closed with the truth.

MLflow is imported when a `Store` is opened (about 2 s). Whatever goes wrong inside it surfaces as `StoreError`, which
callers report and outlive; `RefusedError` means that the store is well and will never take this.
"""

import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rootstock.ops import process
from rootstock.ops.journal import Journal, Line
from rootstock.ops.locks import take

EXPERIMENT = "rootstock"
LINES_PER_BATCH = 500  # MLflow takes 1000 metrics, 100 parameters, 100 tags and 1 MB in a call
NAMES_PER_BATCH = 100
PARAM_CHARACTERS = 6000  # MLflow cuts a parameter's value there
SQLITE = "sqlite:///"
CREATION_SECONDS = 60.0  # a new file's migrations take 2 to 10
STALE_SECONDS = 600.0  # a run of another host, whose processes we cannot see, is gone after this silence
TOKEN, PROCESS, HEARTBEAT, ATTEMPT = (f"rootstock.{name}" for name in ("token", "process", "heartbeat", "attempt"))
# answers that stay the same however often we ask
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else every new database is announced
    # its own 7 tries of 120 s would hold a leaving process for minutes; the journal tries again anyway
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class StoreError(RuntimeError):
    """The tracking store did not do what it was asked; trying later may help."""


class RefusedError(StoreError):
    """The tracking store is well and refuses the content; trying later does not help."""


def tracking_uri(project: Path) -> str:
    """Return `$MLFLOW_TRACKING_URI`, else the SQLite store in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{project.resolve() / 'mlflow.db'}"


@contextmanager
def translated() -> Iterator[None]:
    """Turn what MLflow, its database and its network raise into `StoreError`."""
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise StoreError(f"MLflow cannot be imported: {error}") from error
    try:
        yield
    except MlflowException as error:
        refused = error.error_code in REFUSALS
        raise (RefusedError if refused else StoreError)(f"MLflow: {error}") from error
    except (SQLAlchemyError, OSError) as error:  # a requests.RequestException is an OSError
        raise StoreError(f"{type(error).__name__}: {error}") from error


class Store:
    """An open tracking store: its client and the id of our experiment in it."""

    def __init__(self, project: Path) -> None:
        """Open, and make what is missing; a new SQLite file under a file lock: its migrations must not race.

        MLflow's own lock does not prevent it: three processes at once end in `duplicate column name` (tried on 3.17.2).

        Raises:
            StoreError: it cannot be reached.
        """
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        uri = tracking_uri(project)
        with translated():
            from mlflow.tracking.client import MlflowClient  # takes seconds: not under the lock
        with translated(), _creation_lock(uri):
            logging.getLogger("alembic").setLevel(logging.WARNING)
            # a server knows better where artifacts go
            artifacts = (project.resolve() / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
            if artifacts:
                _make_tables(Path(uri.removeprefix(SQLITE)), artifacts)
            self.client = MlflowClient(uri)
            found = self.client.get_experiment_by_name(EXPERIMENT)
            self.experiment: str = (
                found.experiment_id if found else self.client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            )

    def find_run(self, token: str) -> str | None:
        """Return the id of the run with this token, which is a part of its creation: no run is lost or made twice."""
        with translated():
            runs = self.client.search_runs([self.experiment], f"tags.`{TOKEN}` = '{token}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def open_run(self, header: dict) -> "OpenRun":
        """Find or make the run of a journal's header."""
        run_id = self.find_run(header["token"])
        with translated():
            if run_id is None:
                created = self.client.create_run(
                    self.experiment,
                    start_time=header["start_ms"],
                    run_name=header["shown_name"],
                    tags={TOKEN: header["token"], **_life_tags(header, header["start_ms"])},
                )
                return OpenRun(self.client, created, header, is_new=True)
            return OpenRun(self.client, self.client.get_run(run_id), header, is_new=False)

    def close_abandoned(self) -> list[str]:
        """Set RUNNING runs whose process is gone to KILLED, ended at their last heartbeat; return their ids."""
        with translated():
            running = self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'", max_results=1000)
            closed = [run.info.run_id for run in running if _is_abandoned(run)]
            for run_id in closed:
                run = self.client.get_run(run_id)  # again: its next attempt may have begun meanwhile
                if _is_abandoned(run):
                    self.client.set_terminated(run_id, "KILLED", end_time=int(run.data.tags[HEARTBEAT]))
        return closed


class OpenRun:
    """One run in an open store."""

    def __init__(self, client: Any, run: Any, header: dict, *, is_new: bool) -> None:
        self.id: str = run.info.run_id
        self.client = client
        self._header = header
        self._params: dict[str, str] = dict(run.data.params)
        self._logged_steps: dict[str, set[int]] | None = None if is_new else {}

    def send(self, lines: list[Line]) -> list[str]:
        """Send a journal's lines; return why some were refused: they never will be accepted, so must not block."""
        try:
            self._send(lines)
        except RefusedError as error:
            if len(lines) == 1:
                return [f"{lines[0]}: {error}"]
            return [problem for line in lines for problem in self.send([line])]
        return []

    def _send(self, lines: list[Line]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        by_kind: dict[str, list[Line]] = {}
        for line in lines:
            by_kind.setdefault(line[0], []).append(line[1:])
        params, changed = self._split_params(by_kind.pop("param", []))
        tags = [*by_kind.pop("tag", []), *changed]
        metrics = [Metric(key, value, ms, step) for key, value, step, ms in self._new_points(by_kind.pop("point", []))]
        with translated():
            if metrics:
                self.client.log_batch(self.id, metrics=metrics)
            for batch in _batches(params):
                self.client.log_batch(self.id, params=[Param(key, value) for key, value in batch])
            for batch in _batches(tags):
                self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in batch])
            if inputs := by_kind.pop("input", []):
                self._log_inputs(inputs)
            for (path,) in by_kind.pop("artifact", []):
                if not Path(path).exists():
                    raise RefusedError("the file is gone since it was handed over")
                self.client.log_artifact(self.id, path)
        self._params |= dict(params)
        by_kind.pop("header", None)
        by_kind.pop("end", None)
        assert not by_kind, f"unknown lines {list(by_kind)}"

    def _split_params(self, lines: list[Line]) -> tuple[list[Line], list[Line]]:
        """Return new parameters, and as tags those that an earlier attempt logged otherwise: MLflow refuses these."""
        new = [[key, value] for key, value in lines if key not in self._params]
        changed = [
            [f"attempt.{self._header['attempt']}.{key}", value]
            for key, value in lines
            if self._params.get(key, value)[:PARAM_CHARACTERS] != value[:PARAM_CHARACTERS]
        ]
        return new, changed

    def _new_points(self, points: list[Line]) -> list[Line]:
        """Drop points whose key and step the run has from an earlier attempt.

        The store itself drops a point with the same time stamp and value; an attempt that repeats steps (its
        checkpoint was lost, or the stage was forced) has new ones, and would double the curve.
        """
        if self._logged_steps is None:
            return points
        for key in {point[0] for point in points} - self._logged_steps.keys():
            with translated():
                history = self.client.get_metric_history(self.id, key)
            self._logged_steps[key] = {metric.step for metric in history}
        return [point for point in points if point[2] not in self._logged_steps[point[0]]]

    def _log_inputs(self, inputs: list[Line]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag

        # what mlflow.data's MetaDataset would write: a source, a name, and a digest of our own
        datasets = [
            DatasetInput(
                Dataset(name=name, digest=digest, source_type="local", source=json.dumps({"uri": name})),
                [InputTag("mlflow.data.context", self._header["stage"])],
            )
            for name, digest in inputs
        ]
        self.client.log_inputs(self.id, datasets=datasets)
        for batch in _batches(inputs):  # as tags too: these can be searched and compared
            self.client.log_batch(self.id, tags=[RunTag(f"input.{name}", digest) for name, digest in batch])

    def beat(self, now_ms: int) -> None:
        """Say that the process lives; also undoes a reconcile that misjudged it."""
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in _life_tags(self._header, now_ms).items()]
        with translated():
            self.client.log_batch(self.id, tags=tags)
            self.client.update_run(self.id, status="RUNNING")

    def end(self, status: str, end_ms: int) -> None:
        """Set the final status, unless a later attempt has taken the run over."""
        with translated():
            if self.client.get_run(self.id).data.tags.get(ATTEMPT) == str(self._header["attempt"]):
                self.client.set_terminated(self.id, status, end_time=end_ms)


def deliver(run: OpenRun, journal: Journal) -> list[str]:
    """Send everything pending, batch by batch, acknowledging each; return why lines were refused.

    Raises:
        StoreError: the rest stays pending.
    """
    refused: list[str] = []
    while True:
        lines, cursor = journal.pending(LINES_PER_BATCH)
        if not lines:
            return refused
        refused += run.send(lines)
        for _, status, end_ms in (line for line in lines if line[0] == "end"):
            try:
                run.end(status, end_ms)
            except RefusedError as error:  # a person deleted the run
                refused.append(f"status {status}: {error}")
        journal.acknowledge(cursor)


def _batches(rows: list[Line]) -> Iterator[list[Line]]:
    for start in range(0, len(rows), NAMES_PER_BATCH):
        yield rows[start : start + NAMES_PER_BATCH]


def _life_tags(header: dict, now_ms: int) -> dict[str, str]:
    return {
        PROCESS: json.dumps(header["process"], sort_keys=True),
        HEARTBEAT: str(now_ms),
        ATTEMPT: str(header["attempt"]),
    }


def _is_abandoned(run: Any) -> bool:
    tags = run.data.tags
    if run.info.status != "RUNNING" or PROCESS not in tags:  # ended meanwhile, or not one of ours
        return False
    lives = process.lives(json.loads(tags[PROCESS]))
    silence_s = time.time() - int(tags[HEARTBEAT]) / 1000
    return silence_s > STALE_SECONDS if lives is None else not lives


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """Let one process at a time make a SQLite store; beside the file, because several projects may share it."""
    if not uri.startswith(SQLITE) or _is_made(Path(uri.removeprefix(SQLITE))):
        yield
        return
    path = Path(uri.removeprefix(SQLITE) + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        if not take(lock, timeout_s=CREATION_SECONDS):
            raise StoreError(f"{path}: another process has been opening the store for {CREATION_SECONDS:g} s")
        yield


def _is_made(path: Path) -> bool:
    """Whether a SQLite store holds our experiment, which is made last: it needs no lock to be opened.

    With a lock for every opening, eight experiments on two busy cores waited minutes for one another.
    """
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            return store.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone() is not None
    except sqlite3.Error:  # half made, or not readable just now: then with the lock
        return False


def _make_tables(path: Path, artifacts: str) -> None:
    """Make a missing SQLite file whole, then name it: a kill amid the migrations left a store broken for ever."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f"{path.name}.new")
    for half in (new, new.with_name(f"{new.name}-journal")):
        half.unlink(missing_ok=True)
    SqlAlchemyStore(f"{SQLITE}{new}", artifacts).engine.dispose()
    os.replace(new, path)
