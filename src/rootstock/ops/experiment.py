"""`dvc exp run` with the configuration that was chosen, in a copy of the project.

Two traps of the bare command: it composes conf/ anew, so what is not named falls back to the defaults of
conf/config.yaml, whatever choice params.yaml notes; and run in the workspace it rewrites params.yaml without the note,
so that the next `make repro` falls back too. So the choice is named here, and the experiment runs in a copy.
"""

import os
import subprocess
import sys
from pathlib import Path

from rootstock.config.compose import compose, expand
from rootstock.config.section import ParamsError


def named(choice: list[str], overrides: list[str]) -> list[str]:
    """Return what an experiment is to be given: the noted choice, where the person's overrides do not replace it."""
    replaced = {_key(override) for override in overrides}
    return [*(override for override in choice if _key(override) not in replaced), *overrides]


def prepare(conf: Path, *, choice: list[str], overrides: list[str], queue: bool, name: str | None) -> list[str]:
    """Check every configuration that would run, and return the `dvc` command that runs or queues it.

    Args:
        choice: the overrides that params.yaml notes.
        overrides: the person's, in Hydra's grammar.
        name: of the experiment; a sweep's get `-1`, `-2`, … appended.

    Raises:
        ParamsError: one of them is no valid configuration; or a sweep is not queued.
    """
    given = named(choice, overrides)
    experiments = expand(given)
    if len(experiments) > 1 and not queue:
        raise ParamsError(f"found a sweep of {len(experiments)} experiments, wanted one; --queue queues them all")
    for experiment in experiments:
        compose(conf, experiment)
    command = [sys.executable, "-m", "dvc", "exp", "run", "--queue" if queue else "--temp"]
    command += ["--name", name] if name else []
    return [*command, *(part for override in given for part in ("--set-param", override))]


def run(command: list[str]) -> int:
    """Run what `prepare` returned; return DVC's exit status."""
    # the stages' `python` is the first on PATH
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode


def advice(*, queue: bool, name: str | None) -> str:
    """Return what a person can do next."""
    pattern = f"{name}%" if name else "…"
    lines = {
        "dvc queue start --jobs 4": "run what is queued, four at a time; `dvc queue status` shows how far it is",
        "dvc exp show --only-changed": "parameters and metrics side by side",
        "make ui": f"the same with curves; search for: tags.`dvc.experiment` LIKE '{pattern}'",
        f"dvc exp apply {name or '…'}": "adopt one; then `make repro SET=…` with its values notes the choice",
    }
    return "\n".join(f"{command:32}{text}" for command, text in list(lines.items())[0 if queue else 1 :])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
