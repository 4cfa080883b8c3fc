"""Why a stage will rerun: each thing that differs from what dvc.lock recorded of it, in words and with its remedy."""

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.ops import configuration
from rootstock.ops.dvc_lock import Record
from rootstock.ops.explanation import code_changes
from rootstock.ops.explanation.dvc_status import Out, Stage, Status, Writer


class Cause(NamedTuple):
    """One reason."""

    kind: str  # running, never ran, command, parameter, code, data, output
    subject: str  # a key or a path; empty where the stage itself is meant
    text: str
    is_harmless: bool = False  # `dvc commit -f` settles it: the result stays the one that a run would give


class Plan(NamedTuple):
    """What `dvc repro` has before it at one stage."""

    stage: Stage
    causes: list[Cause]  # its own
    follows: list[str]  # stages that run before and whose outputs it reads

    @property
    def is_harmless(self) -> bool:
        """Whether `dvc commit -f` can take the place of a run.

        Data that differ are no cause where the stage before will make them anew, and yet `dvc commit` would record them
        as what this stage read.
        """
        has_read_other = any(word and not path.endswith(".py") for path, word in self.stage.deps.items())
        return bool(self.causes) and all(cause.is_harmless for cause in self.causes) and not has_read_other


class Here(NamedTuple):
    """What the causes are found from."""

    status: Status
    records: dict[str, Record]  # dvc.lock's; empty where nothing has run
    params: dict[str, Any]  # params.yaml's sections
    writers: dict[str, Writer]  # who writes which outputs now
    root: Path


def plans(here: Here) -> list[Plan]:
    """Say for each stage, in the order of `dvc repro`, why it will run; neither causes nor follows: it will not."""
    # the same module is a dependency of many stages
    judge = functools.cache(functools.partial(code_changes.change, root=here.root))
    found: list[Plan] = []
    busy: set[str] = set()
    for stage in here.status.stages.values():
        follows = [name for name in stage.needs if name in busy]
        causes = _causes(stage, follows, here, judge)
        if causes or follows:
            busy.add(stage.name)
        found.append(Plan(stage, causes, follows))
    return found


def _causes(stage: Stage, follows: list[str], here: Here, judge: Callable) -> list[Cause]:
    for path in stage.outs:
        if path in here.writers:
            return [
                Cause("running", "", f"is running now: pid {here.writers[path].pid} ({here.writers[path].command})")
            ]
    record = here.records.get(stage.name)
    if record is None:
        return [Cause("never ran", "", "never ran: dvc.lock knows nothing of it")]
    causes = []
    if stage.command_changed:
        causes.append(Cause("command", "", f"{record.command} → {stage.command}"))
    for key, word in stage.params.items():
        if word:
            causes += _parameter(key, word, record, here.params)
    for path, word in stage.deps.items():
        if word and path.endswith(".py"):
            causes.append(_code(path, record, judge))
        elif word and not any(_makes(here.status.stages[name], path) for name in follows):
            causes.append(_data(path, word, stage, here.status, record))
    return causes + [_output(path, out, here) for path, out in stage.outs.items() if out.status]


def _parameter(key: str, word: str, record: Record, params: dict[str, Any]) -> list[Cause]:
    present: Any = params
    for part in key.split("."):
        if not isinstance(present, dict) or part not in present:
            return [Cause("parameter", key, "is no longer in params.yaml")]
        present = present[part]
    if key not in record.params:
        return [Cause("parameter", key, "is read now and was not when it last ran")]
    lines = configuration.differences(record.params[key], present, key)
    if not lines:  # 1 and 1.0 are equal to Python
        return [Cause("parameter", key, f"is {word}, says DVC")]
    return [Cause("parameter", subject, text) for subject, _, text in (line.partition(": ") for line in lines)]


def _code(path: str, record: Record, judge: Callable) -> Cause:
    if path not in record.deps:
        return Cause("code", path, "is imported now and was not when it last ran")
    change = judge(path, record.deps[path])
    return Cause("code", path, change.text, change.is_harmless)


def _data(path: str, word: str, stage: Stage, status: Status, record: Record) -> Cause:
    if word == "deleted":
        return Cause("data", path, "is not there, and no stage makes it")
    if path not in record.deps:
        return Cause("data", path, "is read now and was not when it last ran")
    makers = [name for name in stage.needs if _makes(status.stages[name], path)]
    if len(makers) == 1:
        return Cause("data", path, f"{makers[0]} has made it anew since this last ran")
    if makers:
        return Cause("data", path, "a file in it was made anew, added or removed since this last ran")
    return Cause("data", path, "changed by hand since this last ran")


def _output(path: str, out: Out, here: Here) -> Cause:
    if out.status == "not in cache":
        text = "is in the workspace and lost from DVC's cache; `dvc commit -f` puts it back there"
        return Cause("output", path, text, is_harmless=True)
    if out.status == "new":
        return Cause("output", path, "is written now and was not when it last ran")
    if out.status == "deleted":
        return Cause("output", path, f"is not in the workspace; {_restore(path, out, here)}")
    undo = ""
    if out.in_cache:
        undo = f"; `dvc checkout --force {path}` undoes it"
    elif _in_git(path, here.root):
        undo = f"; `git checkout -- {path}` undoes it"
    return Cause("output", path, f"was edited since the stage wrote it{undo}")


def _restore(path: str, out: Out, here: Here) -> str:
    if out.in_cache:
        return "the cache has it: `dvc checkout` restores it"
    if not out.is_cached:
        return f"git has it: `git checkout -- {path}`" if _in_git(path, here.root) else "no copy of it is kept"
    return "neither is it in the cache; " + (
        "`dvc pull` restores it if the remote has it"
        if here.status.has_remote
        else "no remote is configured that could have it"
    )


def _in_git(path: str, root: Path) -> bool:
    command = ["git", "--no-optional-locks", "-C", str(root), "ls-files", "--error-unmatch", "--", path]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _makes(stage: Stage, path: str) -> bool:
    """Whether a stage writes a path, something in it, or the folder around it."""
    return any(out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in stage.outs)
