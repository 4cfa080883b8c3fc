"""DVC's own answer to whether a stage is stale, read without its locks: it must be had while a reproduction runs."""

import json
from pathlib import Path
from typing import NamedTuple

from rootstock.ops.locks import is_held

LOCK, WRITERS = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")


class Out(NamedTuple):
    """An output as it lies here."""

    status: str  # "" as recorded, else DVC's word: deleted, modified, new, not in cache
    is_cached: bool  # whether DVC keeps it, rather than git or nobody
    in_cache: bool  # whether the recorded content can be restored from the cache


class Stage(NamedTuple):
    """A stage of dvc.yaml, its items resolved, as DVC sees it now."""

    name: str
    command: str
    needs: list[str]  # the stages whose outputs it reads
    command_changed: bool
    deps: dict[str, str]  # path -> status, "" where it is as recorded
    params: dict[str, str]  # key -> status
    outs: dict[str, Out]

    @property
    def is_stale(self) -> bool:
        """Whether `dvc repro` would run it, were nothing upstream to run before."""
        statuses = [*self.deps.values(), *self.params.values(), *(out.status for out in self.outs.values())]
        return self.command_changed or any(statuses)


class Status(NamedTuple):
    """The pipeline as DVC sees it."""

    stages: dict[str, Stage]  # in the order of `dvc repro`
    has_remote: bool


def look(root: Path) -> Status:
    """Ask DVC about every stage; files that it has not seen are hashed, nothing in the project is written.

    Raises:
        ValueError: dvc.yaml or dvc.lock cannot be read; in DVC's words.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    try:
        with Repo(str(root)) as repo:
            graph = get_active_graph(repo.index.graph)
            # a `.dvc` file, such as a champion's, is no stage: it runs nothing
            ordered = [stage for stage in plan_repro(graph) if stage.cmd]
            stages = {stage.addressing: _stage(stage, graph) for stage in ordered}
            return Status(stages, has_remote=bool(repo.config.get("remote")))
    except DvcException as error:
        raise ValueError(f"DVC cannot read this project: {error}; `rootstock mend` mends what a kill left") from None


def _stage(stage, graph) -> Stage:
    from dvc.dependency.param import ParamsDependency

    deps, params = {}, {}
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            found = dep.workspace_status().get(str(dep), {})
            # one word for all where the file is gone or the stage never ran
            params |= {key: found if isinstance(found, str) else found.get(key, "") for key in dep.params}
        else:
            deps[dep.def_path] = dep.workspace_status().get(str(dep), "")
    return Stage(
        name=stage.addressing,
        command=stage.cmd,
        needs=[other.addressing for other in graph.successors(stage) if other.cmd],
        command_changed=stage.changed_stage(),
        deps=deps,
        params=params,
        outs={out.def_path: _out(out) for out in stage.outs},
    )


def _out(out) -> Out:
    found = out.status()
    if found:  # a file that is lost from the cache may be gone or edited here as well, which matters more
        found = out.workspace_status() or found
    return Out(
        status=found.get(str(out), ""),
        is_cached=bool(out.use_cache),
        in_cache=bool(out.use_cache and out.hash_info and not out.changed_cache()),
    )


class Writer(NamedTuple):
    """A living process that writes outputs of a stage."""

    pid: int
    command: str


def writers(root: Path) -> dict[str, Writer]:
    """Return who writes which outputs at this moment, by DVC's note of it: path relative to the project -> process."""
    import psutil

    base = root.resolve()
    return {
        Path(path).relative_to(base).as_posix(): Writer(info["pid"], info["cmd"])
        for path, info in _noted(root).get("write", {}).items()
        if psutil.pid_exists(info["pid"]) and Path(path).is_relative_to(base)
    }


def stale(root: Path) -> list[str]:
    """Return what DVC's note of readers and writers says of processes that are gone, in words."""
    import psutil

    noted = _noted(root)
    pairs = [(path, info) for path, info in noted.get("write", {}).items()]
    pairs += [(path, info) for path, readers in noted.get("read", {}).items() for info in readers]
    return [f"{path} by pid {info['pid']}" for path, info in pairs if not psutil.pid_exists(info["pid"])]


def _noted(root: Path) -> dict:
    try:
        return json.loads((root / WRITERS).read_text())
    except (OSError, ValueError):  # nothing ran yet, or DVC is rewriting it
        return {}


def is_locked(root: Path) -> bool:
    """Whether a DVC command holds the project at this moment."""
    return is_held(root / LOCK)
