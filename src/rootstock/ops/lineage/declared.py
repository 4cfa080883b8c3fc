"""What dvc.yaml declares for each stage, resolved by DVC: nothing is hashed, nothing is run."""

from pathlib import Path
from typing import NamedTuple


class Declared(NamedTuple):
    """A stage as dvc.yaml has it."""

    command: str
    deps: set[str]
    params: set[str]  # keys of params.yaml
    outs: set[str]  # metrics and plots among them


def declared(root: Path) -> dict[str, Declared]:
    """Return every stage by its name in dvc.lock, such as finetune@full-0.

    Raises:
        ValueError: dvc.yaml cannot be read; in DVC's words.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    found = {}
    try:
        with Repo(str(root)) as repo:
            stages = [stage for stage in repo.index.stages if stage.cmd]  # not a `.dvc` file, such as a champion's
    except DvcException as error:
        raise ValueError(f"DVC cannot read this project: {error}") from None
    for stage in stages:
        params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        found[stage.addressing] = Declared(
            command=stage.cmd,
            deps={dep.def_path for dep in stage.deps if dep not in params},
            params={key for dep in params for key in dep.params},
            outs={out.def_path for out in stage.outs},
        )
    return found
