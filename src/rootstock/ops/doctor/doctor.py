"""`rootstock doctor`: look at everything that a reproduction stands on, change nothing, and say what to do."""

from collections.abc import Callable, Iterable
from pathlib import Path

from rootstock.ops.doctor import doctor_machine, doctor_project, doctor_store
from rootstock.ops.doctor.finding import FAIL, Finding

Check = Callable[[], Iterable[Finding]]
# in the order of the page: what the next ones stand on comes first
CHECKS: tuple[tuple[str, Check], ...] = (
    ("environment", doctor_machine.python),
    ("environment", doctor_machine.packages),
    ("environment", doctor_machine.torch_pair),
    ("environment", doctor_machine.checkout),
    ("machine", doctor_machine.cores),
    ("machine", doctor_machine.memory),
    ("machine", doctor_machine.gpus),
    ("disk", doctor_machine.space),
    ("disk", doctor_machine.links),
    ("DVC", doctor_project.recorded),
    ("DVC", doctor_project.remote),
    ("DVC", doctor_project.locks),
    ("git", doctor_project.git),
    ("configuration", doctor_project.parameters),
    ("data", doctor_project.archives),
    ("data", doctor_project.leftovers),
    ("data", doctor_project.training_states),
    ("store", doctor_store.store),
    ("store", doctor_store.journals),
    ("registry", doctor_store.champions),
)


def examine(checks: Iterable[tuple[str, Check]] = CHECKS) -> list[Finding]:
    """Look at the project in the working directory; a check that breaks off is a finding, and the others go on."""
    found: list[Finding] = []
    for group, check in checks:
        try:
            found += check()
        except (ValueError, OSError) as error:
            text = f"{check.__name__.replace('_', ' ')}: cannot be examined: {error}"
            remedy = "mend what the message names" if isinstance(error, ValueError) else f"look at {_named(error)}"
            found.append(Finding(group, check.__name__, FAIL, text, remedy))
    return found


def _named(error: OSError) -> str:
    return str(error.filename) if error.filename else str(Path.cwd())
