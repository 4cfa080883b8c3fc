"""`rootstock explain`: why each stage will rerun, in words, before it does. Runs nothing and takes no lock."""

import hashlib
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock import layout
from rootstock.config.load import read_yaml
from rootstock.ops import dvc_lock, tidy
from rootstock.ops.explanation import causes, dvc_status
from rootstock.ops.explanation.causes import Cause, Here, Plan

WIDTH = 110  # characters of a terminal
MAX_SUBJECTS = 4  # paths of one group printed
MAX_REASONS = 8  # of one group printed
MAX_NAMES = 6  # stages of one group printed


class Outlook(NamedTuple):
    """What `dvc repro` would do here and now."""

    plans: list[Plan]  # every stage, in order
    records: dict[str, dvc_lock.Record]
    seconds: dict[str, float]  # what a stage took last time, where it is noted
    other_packages: list[str]  # stages whose results were made with another requirements.lock
    leftovers: list[Path]
    is_locked: bool  # a DVC command is at work


def examine() -> Outlook:
    """Find out why the stages of the project in the working directory will run.

    Raises:
        ValueError: dvc.yaml, dvc.lock or params.yaml cannot be read.
    """
    root = Path()
    is_locked = dvc_status.is_locked(root)  # before DVC is asked, which takes a second
    status = dvc_status.look(root)
    records = dvc_lock.current(root) if layout.DVC_LOCK.is_file() else {}
    writers = dvc_status.writers(root)
    noted = {name: run for name in status.stages if (run := _run(name)) is not None}
    wanted = _lock_sha256()
    return Outlook(
        plans=causes.plans(Here(status, records, read_yaml(layout.PARAMS), writers, root)),
        records=records,
        seconds={name: run["wall_seconds"] for name, run in noted.items()},
        other_packages=[name for name, run in noted.items() if run["environment"]["lock_sha256"] != wanted],
        leftovers=tidy.leftovers(),
        is_locked=is_locked or bool(writers),
    )


def _run(name: str) -> dict | None:
    """The note of a stage's last run: finetune@full-0 has reports/runs/finetune-full-0.json."""
    from rootstock.ops import runs
    from rootstock.schema.contract import ContractError

    path = layout.run(*name.split("@"))
    try:
        return runs.read(path) if path.is_file() else None
    except (ContractError, FileNotFoundError):  # edited by hand, or a stage removed it this moment
        return None


def _lock_sha256() -> str | None:
    return hashlib.sha256(layout.LOCK.read_bytes()).hexdigest() if layout.LOCK.is_file() else None


def summary(outlook: Outlook) -> str:
    """Compose the text of `rootstock explain`."""
    own = [plan for plan in outlook.plans if plan.causes]
    followers = [plan for plan in outlook.plans if plan.follows and not plan.causes]
    num_idle = len(outlook.plans) - len(own) - len(followers)
    lines = _busy(outlook)
    if not own:
        lines.append(f"Nothing will rerun: all {len(outlook.plans)} stages are as dvc.lock recorded them.")
        return "\n".join([*lines, *_notes(outlook)])
    rerun = _count(len(own), "stage")
    lines += [f"{rerun} of {len(outlook.plans)} will rerun{_cost(own, outlook)}.", ""]
    everything = [plan.stage.name for plan in outlook.plans]
    for members in _groups(own):
        lines += [*_group(members, everything, outlook), ""]
    if followers:
        names = _names([plan.stage.name for plan in followers], everything)
        text = f"follow from these where what they read comes out different{_cost(followers, outlook)}"
        lines += [*_wrapped(f"{names}: {text}"), ""]
    lines.append(f"{_count(num_idle, 'stage')} {'stays' if num_idle == 1 else 'stay'} as recorded.")
    return "\n".join([*lines, *_commit(own), *_notes(outlook)])


def _busy(outlook: Outlook) -> list[str]:
    return ["A DVC command is at work here: what follows is the state of this moment.", ""] if outlook.is_locked else []


def _commit(own: list[Plan]) -> list[str]:
    names = [plan.stage.name for plan in own if plan.is_harmless]
    if not names:
        return []
    text = "No result can change where only comments, docstrings or layout did. This records it instead of running:"
    return ["", *_wrapped(text), f"  dvc commit -f {' '.join(names)}"]


def _notes(outlook: Outlook) -> list[str]:
    lines = []
    if outlook.other_packages:
        names = _names(outlook.other_packages, [plan.stage.name for plan in outlook.plans])
        text = (
            f"warning: {names} ran with another {layout.LOCK} than the present one; DVC does not track packages. "
            "`dvc repro --force` makes the results anew with these"
        )
        lines += ["", *_wrapped(text)]
    if outlook.leftovers:
        shown = ", ".join(map(str, outlook.leftovers[:MAX_SUBJECTS]))
        more = len(outlook.leftovers) - MAX_SUBJECTS
        text = f"left by replicas that params.yaml no longer names: {shown}" + (f" and {more} more" if more > 0 else "")
        lines += ["", *_wrapped(f"{text}; `make tidy` removes them, and select and report refuse to run before")]
    return lines


def _groups(own: list[Plan]) -> list[list[Plan]]:
    """Put stages together that run for the same reasons; which of their own outputs is concerned does not part them."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in own:
        key = tuple(dict.fromkeys(_key(cause) for cause in plan.causes))
        groups.setdefault(key, []).append(plan)
    return list(groups.values())


def _key(cause: Cause) -> tuple:
    if cause.kind == "output":
        return cause.kind, cause.text.replace(cause.subject, "…")
    return cause.kind, cause.text, cause.subject


def _group(members: list[Plan], everything: list[str], outlook: Outlook) -> list[str]:
    names = [plan.stage.name for plan in members]
    lines = _wrapped(_names(names, everything) + _cost(members, outlook), indent=0)
    gathered: dict[tuple, list[Cause]] = {}
    for cause in (cause for plan in members for cause in plan.causes):
        gathered.setdefault(_key(cause), []).append(cause)
    for same in list(gathered.values())[:MAX_REASONS]:
        lines += _reason(same[0], list(dict.fromkeys(cause.subject for cause in same)))
    if len(gathered) > MAX_REASONS:
        lines.append(f"  … and {len(gathered) - MAX_REASONS} more: `rootstock explain {names[0]}`")
    return lines


def _reason(cause: Cause, subjects: Sequence[str]) -> list[str]:
    if not cause.subject:
        return _wrapped(f"{cause.kind}: {cause.text}" if cause.kind == "command" else cause.text, indent=2)
    if len(subjects) == 1:
        return _wrapped(f"{cause.kind} {cause.subject}: {cause.text}", indent=2)
    shown = ", ".join(subjects[:MAX_SUBJECTS])
    more = f" and {len(subjects) - MAX_SUBJECTS} more" if len(subjects) > MAX_SUBJECTS else ""
    text = cause.text.replace(cause.subject, "…")
    return _wrapped(f"{cause.kind}s {shown}{more}: each {text}", indent=2)


def detail(outlook: Outlook, name: str) -> str:
    """Compose the text of `rootstock explain STAGE`: everything that the stage depends on, with its state.

    Args:
        name: of a stage, or of its items together: `finetune` means each of them.

    Raises:
        ValueError: there is no such stage.
    """
    chosen = [plan for plan in outlook.plans if name in (plan.stage.name, plan.stage.name.split("@")[0])]
    if not chosen:
        known = ", ".join(plan.stage.name for plan in outlook.plans)
        raise ValueError(f"dvc.yaml: found no stage {name!r}, wanted one of {known}")
    return "\n".join([*_busy(outlook), "\n\n".join("\n".join(_detail(plan, outlook)) for plan in chosen)])


def _detail(plan: Plan, outlook: Outlook) -> list[str]:
    stage, record = plan.stage, outlook.records.get(plan.stage.name)
    lines = [stage.name + _cost([plan], outlook)]
    for cause in plan.causes:
        lines += _reason(cause, [cause.subject])
    if plan.follows:
        lines += _wrapped(f"follows from {', '.join(plan.follows)}, where what it reads comes out different", indent=2)
    if not plan.causes and not plan.follows:
        lines.append("  will not rerun: everything is as dvc.lock recorded it")
    if plan.is_harmless:
        lines.append(f"  no result can change; this records it instead of running: dvc commit -f {stage.name}")
    if stage.name in outlook.other_packages:
        lines.append(f"  warning: it ran with another {layout.LOCK} than the present one")
    rows = [("reads", path, word) for path, word in stage.deps.items()]
    rows += [("parameter", key, word) for key, word in stage.params.items()]
    rows += [("writes", path, out.status) for path, out in stage.outs.items()]
    for kind, subject, word in rows:
        known = {**record.deps, **record.outs}.get(subject, "") if record else ""
        lines.append(f"  {kind:9}  {word or 'as recorded':12}  {known[:8]:8}  {subject}")
    dropped = [path for path in (record.deps if record else {}) if path not in stage.deps]
    lines += [f"  {'read once':9}  {'dropped':12}  {'':8}  {path} (DVC does not rerun for this)" for path in dropped]
    return lines


def _names(names: Sequence[str], everything: Iterable[str]) -> str:
    """Name stages briefly: all items of one by its name alone, and never a screenful."""
    parts: list[str] = []
    for base in dict.fromkeys(name.split("@")[0] for name in names):
        items = [name for name in names if name.split("@")[0] == base]
        num_all = sum(name.split("@")[0] == base for name in everything)
        if len(items) > 2 and len(items) == num_all:
            parts.append(f"{base} (all {num_all})")
        elif len(items) > MAX_NAMES:
            parts.append(f"{', '.join(items[:MAX_NAMES])} and {len(items) - MAX_NAMES} more")
        else:
            parts += items
    return ", ".join(parts)


def _cost(members: list[Plan], outlook: Outlook) -> str:
    from rootstock.evaluation.report import duration

    known = [outlook.seconds[plan.stage.name] for plan in members if plan.stage.name in outlook.seconds]
    if not known:
        return ""
    among = "" if len(known) == len(members) else f"{len(known)} of them "
    return f" ({among}took {duration(sum(known))} last time)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _wrapped(text: str, *, indent: int = 0) -> list[str]:
    first, rest = " " * indent, " " * (indent + 2)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
