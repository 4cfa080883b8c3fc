"""`kill -9` during `dvc repro`, at instants drawn by seed: does the next run succeed, with no manual clean-up?"""

import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from faults import trial
from faults.trial import DATA, TRAINING, Project

MODES = ("dvc", "group", "stage")  # who is killed: dvc alone, its whole process group, the stage's process alone
SHELLS = ("/bin/bash", "/bin/sh")  # DVC starts stages through $SHELL; bash replaces itself by the stage, dash stays
EPOCHS = 10
DATA_SHARE = 0.4  # of the trials kill data stages, the others a training or an evaluation
LATER_SECONDS = 4.0  # a stage that is to be killed alone lives at most this long first
WAIT_SECONDS = 90.0
SOONER = 0.9  # a trial that ended before its instant is repeated with an instant this much sooner


class Planned(NamedTuple):
    """A trial as it was drawn."""

    mode: str
    targets: tuple[str, ...]
    index: int
    instant: float  # seconds after the start of `dvc repro`
    shell: str
    mend_first: bool  # `rootstock mend` before the next `dvc repro`, as in `make repro`; else only where that one fails
    later: float  # of a stage that is to be killed alone and has just begun: which part of its time it gets


class Base(NamedTuple):
    """What trials of one kind begin with, and what an undisturbed reproduction makes of it."""

    folder: Path
    seconds: float
    wanted: dict


def prepare(*, repository: Path, folder: Path, jobs: int) -> dict[tuple[str, ...], Base]:
    """Make and reproduce, undisturbed, what trials begin with, for each kind of targets.

    Args:
        folder: where projects are made; logs stay there.
        jobs: reproductions side by side: the load that the trials will have.
    """
    fresh = trial.make(repository, folder / "fresh", epochs=EPOCHS)
    bases = {}
    with ThreadPoolExecutor(jobs) as pool:
        for targets, base in ((DATA, fresh), (TRAINING, _with_data(fresh, folder / "with-data"))):
            copies = [folder / f"undisturbed-{targets[0]}-{number}" for number in range(jobs)]
            done = list(pool.map(_undisturbed, [base] * jobs, copies, [targets] * jobs))
            wanted = done[0][1]
            assert all(outcome == wanted for _, outcome in done), "undisturbed reproductions differ"
            bases[targets] = Base(base, sum(seconds for seconds, _ in done) / jobs, wanted)
            print(f"{' '.join(targets)}: {bases[targets].seconds:.1f} s undisturbed", flush=True)
    return bases


def measure(bases: dict[tuple[str, ...], Base], *, folder: Path, num_each: int, jobs: int, seed: int) -> dict:
    """Kill `num_each` times in each mode; return the trials with what was found."""
    plan = _plan(random.Random(seed), {targets: base.seconds for targets, base in bases.items()}, num_each)
    with ThreadPoolExecutor(jobs) as pool:
        trials = list(pool.map(lambda one: _killed(bases[one.targets], folder, one), plan))
    return {
        "num_epochs": EPOCHS,
        "undisturbed_seconds": {" ".join(targets): round(base.seconds, 1) for targets, base in bases.items()},
        "jobs": jobs,
        "seed": seed,
        "trials": trials,
    }


def _plan(draw: random.Random, seconds: dict[tuple[str, ...], float], num_each: int) -> list[Planned]:
    num_data = round(num_each * DATA_SHARE)
    plan = [
        Planned(
            mode=mode,
            targets=targets,
            index=index,
            instant=(index + draw.random()) / number * seconds[targets],
            shell=draw.choice(SHELLS),
            mend_first=draw.random() < 0.5,
            later=draw.random(),
        )
        for targets, number in ((DATA, num_data), (TRAINING, num_each - num_data))
        for index in range(number)
        for mode in MODES
    ]
    draw.shuffle(plan)  # what is measured first is a sample of all
    return plan


def _with_data(fresh: Path, folder: Path) -> Path:
    """Return a copy in which the data stages have run."""
    project = _copy(fresh, folder, (*DATA, *(name.replace("target", "source") for name in DATA)), SHELLS[0])
    status, said = project.repro()
    assert status == 0, said[-3000:]
    return folder


def _undisturbed(base: Path, folder: Path, targets: tuple[str, ...]) -> tuple[float, dict]:
    project = _copy(base, folder, targets, SHELLS[0])
    began = time.monotonic()
    status, said = project.repro()
    assert status == 0, said[-3000:]
    seconds = time.monotonic() - began
    wanted = trial.outcome(project)
    found = trial.problems(project, wanted)
    assert not found, found
    project.remove()
    return seconds, wanted


def _copy(base: Path, folder: Path, targets: tuple[str, ...], shell: str) -> Project:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    return Project(folder, targets=targets, shell=shell)


def _killed(base: Base, folder: Path, planned: Planned) -> dict:
    name = f"{planned.targets[0]}-{planned.mode}-{planned.index}"
    project = _copy(base.folder, folder / name, planned.targets, planned.shell)
    began = time.monotonic()
    dvc = project.begin_repro()
    _sleep_until(dvc, began + planned.instant)
    stage = _wait_for_stage(dvc, project, planned.later) if planned.mode == "stage" else project.living_stage()
    instant = time.monotonic() - began
    if dvc.poll() is not None:  # quicker than the undisturbed ones, which had other load beside them
        return _killed(base, folder, planned._replace(instant=planned.instant * SOONER))
    hit = _describe(project, stage)
    _kill(planned.mode, dvc, stage)
    began = time.monotonic()
    attempts, mended = _recover(project, mend_first=planned.mend_first)
    seconds = time.monotonic() - began
    if not planned.mend_first:  # the next `make repro` would do so; a plain `dvc repro` leaves half files beside others
        mended += _mend(project)
    found = trial.problems(project, base.wanted) if attempts[-1] == "" else [f"did not recover: {attempts[-1]}"]
    runs = trial.runs(project)
    print(f"{name:24} {instant:6.1f} s  {hit:32} {seconds:5.1f} s  {attempts} {mended} {found}", flush=True)
    if not found:
        project.remove()
    return {
        **{key: value for key, value in planned._asdict().items() if key not in ("instant", "later")},
        "instant_seconds": round(instant, 2),
        "hit": hit,
        "mended": mended,
        "failed_without_mend": attempts[0] if len(attempts) > 1 else "",
        "recovery_seconds": round(seconds, 1),
        "runs": runs,
        "problems": found,
    }


def _describe(project: Project, stage: trial.Note | None) -> str:
    if stage is None:
        return "dvc, between stages"
    wrote = any(note.owner == stage.owner and note.event != "start" for note in project.notes())
    return f"{stage.stage}, {'at work' if wrote else 'starting'}"


def _recover(project: Project, *, mend_first: bool) -> tuple[list[str], list[str]]:
    """Reproduce again: after `rootstock mend`, as `make repro` does, or at once, and after it only if that fails.

    Returns:
        What each `dvc repro` said when it failed, "" for the one that succeeded; what was mended.
    """
    mended: list[str] = []
    attempts: list[str] = []
    for mend in (True,) if mend_first else (False, True):
        if mend:
            mended += _mend(project)
        status, said = project.repro()
        attempts.append("" if status == 0 else said[-600:])
        if status == 0:
            break
    return attempts, mended


def _mend(project: Project) -> list[str]:
    # what a stage that is just ending says goes to the same log
    return [
        line for line in project.rootstock("mend").splitlines() if line.startswith(("dvc.lock", ".dvc/", "removed"))
    ]


def _sleep_until(dvc: subprocess.Popen, instant: float) -> None:
    while time.monotonic() < instant and dvc.poll() is None:
        time.sleep(0.005)


def _wait_for_stage(dvc: subprocess.Popen, project: Project, later: float) -> trial.Note | None:
    """Return a living stage process; one that only now begins gets some time to live first."""
    stage = project.living_stage()
    deadline = time.monotonic() + WAIT_SECONDS
    waited = stage is None
    while stage is None and dvc.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        stage = project.living_stage()
    if stage and waited:
        end = time.monotonic() + later * LATER_SECONDS
        while time.monotonic() < end and trial.is_alive(stage.owner):
            time.sleep(0.01)
        stage = stage if trial.is_alive(stage.owner) else _wait_for_stage(dvc, project, later / 2)
    return stage


def _kill(mode: str, dvc: subprocess.Popen, stage: trial.Note | None) -> None:
    with suppress(ProcessLookupError):  # it ended by itself in this moment
        if mode == "dvc":
            dvc.kill()
        elif mode == "group":
            os.killpg(dvc.pid, signal.SIGKILL)
        elif stage:
            os.kill(stage.owner, signal.SIGKILL)
    dvc.wait(WAIT_SECONDS)  # of the stage alone: a person sees the prompt again, then types the next command


def verdict(measured: dict) -> dict:
    """Return the figures by mode: how many trials, recovered, without problem, and how long it took."""
    figures = {}
    for mode in MODES:
        trials = [one for one in measured["trials"] if one["mode"] == mode]
        plain = [one for one in trials if not one["mend_first"]]
        figures[mode] = {
            "n": len(trials),
            "num_without_problem": sum(not one["problems"] for one in trials),
            "num_dvc_lock_broken": sum(any("dvc.lock" in line for line in one["mended"]) for one in trials),
            "num_plain_repro": len(plain),
            "num_plain_repro_failed": sum(bool(one["failed_without_mend"]) for one in plain),
            "mean_recovery_seconds": round(sum(one["recovery_seconds"] for one in trials) / max(1, len(trials)), 1),
        }
    return figures
