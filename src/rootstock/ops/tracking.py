"""MLflow tells the truth and never stands in training's way.

What a stage says goes to a journal on disk (`journal.py`); one background thread (the courier) imports MLflow, opens
the store, sends, keeps the heartbeat and samples the machine. So a store that is slow, away or broken costs training
nothing, and what it missed is sent when it is back: by this process, or by the next one that starts (`reconcile`).
"""

import hashlib
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rootstock.ops import hardware, process
from rootstock.ops.journal import Journal, Line, leftovers
from rootstock.ops.locks import Terminated, unwind_on_sigterm
from rootstock.ops.store import OpenRun, Store, StoreError, deliver, tracking_uri

TICK_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
SAMPLE_SECONDS = 10.0
RETRY_SECONDS = 15.0
OPEN_SECONDS = 20.0  # how long `Run.id` waits for the store to say the id
LEAVE_SECONDS = 120.0  # how long a finished stage waits for its last points: a store that answers may be slow
KILLED_LEAVE_SECONDS = 5.0  # the same after SIGTERM or Ctrl-C: the next process may be waiting for our lock
REMEMBERED = ("token", "attempt", "run_name", "start_ms")  # of a run, beside its training's state
DVC_TAGS = {"dvc.stage": "DVC_STAGE", "dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
WORKSPACE = "workspace"  # the experiment of runs outside any, in DVC's word
SHARDS = "data/shards/"  # the input that names the data, of which a run shows this many digits
DATA_DIGITS = 8


class Point(NamedTuple):
    """A metric's value at a step, with the time it was measured (ms since 1970): sent twice, it is one point."""

    key: str
    value: float
    step: int
    timestamp_ms: int


class Run:
    """What a stage tells about one training or evaluation; nothing here waits for the store or raises for its sake."""

    def __init__(self, journal: Journal, courier: "_Courier") -> None:
        self._journal = journal
        self._courier = courier
        self.attempts: int = journal.header["attempt"]
        self.start_ms: int = journal.header["start_ms"]  # of the first attempt

    @property
    def id(self) -> str | None:
        """The run's id in the store; waits up to `OPEN_SECONDS` for it; None while the store has not been reached."""
        self._courier.opened.wait(OPEN_SECONDS)
        return self._courier.run_id

    @property
    def energy_joules(self) -> float | None:
        """What the GPUs have used since the start of this attempt; None without a GPU that counts."""
        return self._courier.sampler.energy_joules()

    def log(self, points: list[Point]) -> None:
        """Log points; call it with points that are already durable (in a checkpoint), so none is lost or doubled.

        Args:
            points: (key, value, step, timestamp_ms) each; one that the run has from an attempt
                before, by key and step, is not doubled.
        """
        self._append([["point", point[0], float(point[1]), int(point[2]), int(point[3])] for point in points])

    def artifact(self, path: Path) -> None:
        """Copy a file to the run's artifacts; it must stay in place until the run has ended."""
        self._append([["artifact", str(path.resolve())]])

    def tag(self, key: str, value: object) -> None:
        """Set a tag."""
        self._append([["tag", key, _text(value)]])

    def input(self, name: str, digest: str) -> None:
        """Record an input with its hash in DVC's form (`fingerprint.dvc_hash`)."""
        self._append([["input", name, digest]])

    def _append(self, lines: list[Line]) -> None:
        try:
            self._journal.append(lines)
        except OSError as error:  # kept in memory, tried again with the next line
            self._courier.report("journal", f"the journal cannot be written ({error})")


@contextmanager
def start(
    stage: str,
    *,
    names: tuple[str | int, ...],
    params: dict,
    inputs: dict[str, str],
    facts: dict,
    tags: dict[str, object],
    state: Path,
    store: Path,
) -> Iterator[Run]:
    """Track one training or evaluation; a stage that is started again with the same `state` continues the same run.

    Leaving the block ends the run: FINISHED, FAILED on an exception, KILLED on Ctrl-C or SIGTERM (raised in the main
    thread as `Terminated` while the block lasts, so that `finally` runs).

    Args:
        stage: such as "finetune"; with `names` it is the run's name.
        names: what tells this run from the stage's others, such as ("full", 0).
        params: nested; logged flat as `a.b.c`; one that an earlier attempt logged otherwise becomes the tag
            `attempt.N.a.b.c`.
        inputs: file -> hash in DVC's form; logged as MLflow datasets and as tags `input.<file>`.
        facts: nested, about machine and software (`hardware.describe`, `fingerprint.environment`); logged as flat tags.
        tags: more tags; None values are left out.
        state: the folder of this training's state, of which the caller holds the lock.
        store: the project's folder, `layout.project()`: the store, its artifacts and unsent journals are there.
    """
    run_name = "-".join([stage, *map(str, names)])
    memory = state / "tracking.json"
    experiment = os.environ.get("DVC_EXP_NAME")
    header = {
        **_next_attempt(memory, run_name),
        "run_name": run_name,
        "shown_name": f"{experiment} {run_name}" if experiment else run_name,  # in lists where all experiments meet
        "stage": stage,
        "store": _store_name(store),
        "process": process.identity(),
    }
    journal = Journal(store / ".rootstock" / "runs" / f"{header['token']}-{header['attempt']}.jsonl", header=header)
    courier = _Courier(journal, store, memory)
    run = Run(journal, courier)
    dvc = {tag: os.environ[name] for tag, name in DVC_TAGS.items() if os.environ.get(name)}
    data = next((digest[:DATA_DIGITS] for name, digest in inputs.items() if name.startswith(SHARDS)), None)
    # the runs that differ in their seed alone, the last of a replica's names
    group = " ".join([experiment or WORKSPACE, "-".join([stage, *map(str, names[:-1])])])
    ours = {"stage": stage, "group": group, "data": data, "dvc.experiment": WORKSPACE}
    all_tags = {**ours, **dvc, **_flatten(facts), **tags}
    with unwind_on_sigterm():
        run._append(
            [
                *(["param", key, _text(value)] for key, value in _flatten(params).items()),
                *(["tag", key, _text(value)] for key, value in all_tags.items() if value is not None),
                *(["input", name, digest] for name, digest in inputs.items()),
            ]
        )
        courier.start()
        try:
            yield run
        except (KeyboardInterrupt, Terminated):
            _leave(run, courier, "KILLED", KILLED_LEAVE_SECONDS)
            raise
        except BaseException as error:
            failed = not isinstance(error, SystemExit) or error.code not in (None, 0)
            if failed:
                run.tag("error", "".join(traceback.format_exception_only(error)).strip())
            _leave(run, courier, "FAILED" if failed else "FINISHED", LEAVE_SECONDS)
            raise
        _leave(run, courier, "FINISHED", LEAVE_SECONDS)


def _leave(run: Run, courier: "_Courier", status: str, patience_s: float) -> None:
    run._append([["end", status, _now_ms()]])
    courier.finish(patience_s)


def _next_attempt(memory: Path, run_name: str) -> dict:
    """Return who this run is, from the memory of its last attempt if there was one, and remember it."""
    known = {"token": uuid.uuid4().hex, "attempt": 0, "run_name": run_name, "run_id": None, "start_ms": _now_ms()}
    if memory.exists():
        try:
            remembered = json.loads(memory.read_text())
            known = {key: remembered[key] for key in known}
        except (OSError, ValueError, KeyError, TypeError) as error:  # a full disk or a crash left half a file
            print(f"tracking: {memory} cannot be read ({error!r}); this is a new run", file=sys.stderr)
        assert known["run_name"] == run_name, f"{memory} is of {known['run_name']}: two runs share a state folder"
    known["attempt"] += 1
    _remember(memory, known)
    return known


def _remember(memory: Path, value: dict) -> None:
    temporary = memory.with_suffix(".tmp")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w") as file:
            file.write(json.dumps(value))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, memory)
    except OSError as error:
        print(f"tracking: {memory} cannot be written ({error}); a restart may be a new run", file=sys.stderr)


class _Courier:
    """The thread that carries a journal to the store; daemon, so a store that hangs cannot hold the process."""

    def __init__(self, journal: Journal, project: Path, memory: Path) -> None:
        self.opened = threading.Event()  # the first try is over, well or not
        self.run_id: str | None = journal.header["run_id"]
        self.sampler = hardware.Sampler()
        self._journal = journal
        self._project = project
        self._memory = memory
        self._run: OpenRun | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._reported: set[str] = set()
        self._last_sample = -1  # its step, seconds since the run's start
        self._store: Store | None = None  # until it has been reconciled
        # due times on the monotonic clock
        self._next_try = 0.0
        self._next_beat = 0.0
        self._next_sample = time.monotonic() + SAMPLE_SECONDS

    def start(self) -> None:
        self._thread.start()

    def finish(self, patience_s: float) -> None:
        """Let the thread send the rest and end; what does not arrive in time stays on disk for a later process."""
        self._stop.set()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.report(
                "late", f"not everything was sent within {patience_s:g} s; the next run that starts sends the rest"
            )

    def report(self, kind: str, problem: str) -> None:
        """Say once for each kind of problem what went wrong; training goes on."""
        if kind not in self._reported:
            self._reported.add(kind)
            print(f"tracking: {problem}; going on", file=sys.stderr)

    def _work(self) -> None:
        while True:
            leaving = self._stop.is_set()  # before sending: everything said until then is sent
            self._sample(now=leaving)
            self._send(now=leaving)
            if leaving:
                break
            self._stop.wait(TICK_SECONDS)
        if self._run is not None and self._journal.is_delivered():
            self._journal.remove()
        else:
            self._journal.close()
            self.report(
                "left", f"what was not sent is kept in {self._journal.path.parent} and sent when a run starts next"
            )

    def _sample(self, *, now: bool) -> None:
        if now or time.monotonic() >= self._next_sample:
            self._next_sample = time.monotonic() + SAMPLE_SECONDS
            now_ms = _now_ms()
            step = (now_ms - self._journal.header["start_ms"]) // 1000  # goes on through attempts
            if step <= self._last_sample:  # leaving within the second of the last one, which would be doubled
                return
            self._last_sample = step
            try:
                self._journal.append([["point", *reading, step, now_ms] for reading in self.sampler.sample().items()])
            except OSError as error:
                self.report("journal", f"the journal cannot be written ({error})")

    def _send(self, *, now: bool) -> None:
        if not now and time.monotonic() < self._next_try:
            return
        try:
            if self._run is None:
                self._run = self._open()
            elif time.monotonic() >= self._next_beat:
                self._run.beat(_now_ms())
                self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            for problem in deliver(self._run, self._journal):
                self.report("refused", f"the store refused {problem}")
            if self._store is not None:  # only now: what others left may be much
                store, self._store = self._store, None
                _deliver_leftovers(store, self._project, self.report)
                store.close_abandoned()
        except (StoreError, OSError) as error:  # OSError: our own journal could not be read or written
            self._next_try = time.monotonic() + RETRY_SECONDS
            self.report("store", f"{error}; trying again every {RETRY_SECONDS:g} s")
        finally:
            self.opened.set()

    def _open(self) -> OpenRun:
        store = Store(self._project)
        # first what an earlier attempt at this run left: a point that both have is the earlier one's
        _deliver_leftovers(store, self._project, self.report, token=self._journal.header["token"])
        run = store.open_run(self._journal.header)
        run.beat(_now_ms())
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self.run_id = run.id
        self.opened.set()
        if not self._stop.is_set():  # a late store must not bring back the state of a training that has ended
            _remember(self._memory, {key: self._journal.header[key] for key in REMEMBERED} | {"run_id": run.id})
        self._store = store
        return run


def reconcile(*, store: Path) -> list[str]:
    """Deliver what ended processes left unsent, and close the runs whose process is gone.

    Args:
        store: the project's folder.

    Returns:
        The ids of the runs that were closed or completed.

    Raises:
        StoreError: the store cannot be reached.
    """
    opened = Store(store)
    delivered = _deliver_leftovers(opened, store, lambda kind, problem: print(f"tracking: {problem}", file=sys.stderr))
    return delivered + opened.close_abandoned()


def _deliver_leftovers(
    store: Store, project: Path, report: Callable[[str, str], None], *, token: str = ""
) -> list[str]:
    delivered = []
    for journal in leftovers(project / ".rootstock" / "runs", token=token):
        if journal.header["store"] != _store_name(project):  # meant for another store
            journal.close()
            continue
        try:
            last_sign_ms = int(journal.path.stat().st_mtime * 1000)
            run = store.open_run(journal.header)
            for problem in deliver(run, journal):
                report("refused", f"the store refused {problem}")
            if not journal.has_ended():
                run.end("KILLED", last_sign_ms)
            journal.remove()
            delivered.append(run.id)
        except (StoreError, OSError) as error:
            journal.close()
            report("leftover", f"{journal.path} could not be delivered: {error}")
    return delivered


def _store_name(project: Path) -> str:
    # hashed: an address may hold a password
    return hashlib.sha256(tracking_uri(project).encode()).hexdigest()[:16]


def _flatten(value: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat |= _flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
