"""Two at once on one project: two `dvc repro`, and two scripts of one stage without DVC."""

import re
import shutil
import sys
import time
from pathlib import Path

from faults import trial
from faults.trial import TRAINING, Project

PAUSES = (0.0, 0.5, 2.0, 5.0, 12.0)  # seconds between the starts


def measure(*, base: Path, folder: Path, wanted: dict) -> dict:
    """Return for each pause what both said and what was wrong afterwards.

    Args:
        base: a project whose data stages have run.
        wanted: the outcome of an undisturbed reproduction of `TRAINING`.
    """
    return {
        "dvc_repro": [
            _two_repros(base, folder / f"two-{number}", wanted, pause) for number, pause in enumerate(PAUSES)
        ],
        "stage_script": [
            _two_scripts(base, folder / f"scripts-{number}", pause) for number, pause in enumerate(PAUSES)
        ],
    }


def _copy(base: Path, folder: Path) -> Project:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    return Project(folder, targets=TRAINING, shell="/bin/bash")


def _two_repros(base: Path, folder: Path, wanted: dict, pause: float) -> dict:
    project = _copy(base, folder)
    first = project.begin_repro()
    time.sleep(pause)
    second = project.begin_repro()
    statuses = [one.wait(trial.SECONDS) for one in (first, second)]
    said = re.findall(r"ERROR: (.*)", project.said())
    project.rootstock("mend")
    status, _ = project.repro()
    found = trial.problems(project, wanted) if status == 0 else ["the next dvc repro failed"]
    if 0 not in statuses:
        found.append("neither succeeded")
    return _result(project, pause, statuses, said, found)


def _two_scripts(base: Path, folder: Path, pause: float) -> dict:
    project = _copy(base, folder)
    command = [sys.executable, "-m", "pipeline.pretrain"]
    watched = {"FAULTS_STAGE": "pretrain", "FAULTS_ROOT": str(project.folder)}
    first = project.begin(*command, **watched)
    time.sleep(pause)
    second = project.begin(*command, **watched)
    statuses = [one.wait(trial.SECONDS) for one in (first, second)]
    said = re.findall(r"error: (.*)", project.said())
    found = trial.second_writers(project.notes()) + [f"survived: {line}" for line in project.survivors()]
    found += [f"run {name}: {list_}" for name, list_ in trial.runs(project).items() if set(list_) != {"FINISHED"}]
    if 0 not in statuses:
        found.append("neither succeeded")
    return _result(project, pause, statuses, said, found)


def _result(project: Project, pause: float, statuses: list[int], said: list[str], found: list[str]) -> dict:
    result = {"pause_seconds": pause, "exit_statuses": statuses, "said": said, "problems": found}
    print(result, flush=True)
    if not found:
        project.remove()
    return result
