"""Where a model comes from: every stage from the archives to the decision, with hashes, revision and run."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from rootstock import layout
from rootstock.ops import dvc_lock
from rootstock.ops.dvc_lock import Record
from rootstock.ops.lineage.subject import RUNS, Subject
from rootstock.ops.lineage.verify import Checked, Finding
from rootstock.schema import promotion
from rootstock.schema import source as source_schema

LINE_WIDTH = 110  # characters of a terminal
DIGITS = 12  # of a hash or revision, as shown; --json has all
ARCHIVES_SHOWN = 5


class Step(NamedTuple):
    """One stage of a lineage."""

    stage: str
    command: str
    revision: str | None  # of the run; of a data stage, the first whose dvc.lock has all outputs; None: not committed
    is_dirty: bool | None  # whether the run's code differed from its revision; None for a data stage
    run_id: str | None  # MLflow's; None for a data stage
    params: dict[str, Any]
    params_sha256: str
    inputs: dict[str, str]  # data only, path -> md5
    outs: dict[str, str]
    num_modules: int  # of our code, each with its md5 in dvc.lock
    archives: list[dict]  # of a fetch: name, num_bytes, sha256


class Lineage(NamedTuple):
    """A model's whole line."""

    subject: Subject
    steps: list[Step]  # sources first
    decisions: list[dict]  # lines of the ledger on this model


def trace(subject: Subject) -> Lineage:
    """Gather a subject's line from dvc.lock, reports/runs, git and the ledger; nothing is hashed."""
    chain = subject.chain
    model = subject.model()
    lines = promotion.read(layout.PROMOTIONS)
    about = [line for line in lines if model is not None and model[1] in _judged(line)]
    return Lineage(subject, [_step(subject, record) for record in chain], about)


def _step(subject: Subject, record: Record) -> Step:
    run = subject.run(record)
    if run is not None:
        revision, is_dirty = run["environment"]["git_revision"], run["environment"]["git_dirty"]
    else:
        revision, is_dirty = dvc_lock.revision_with(record.outs.values()), None
    params = json.dumps(record.params, sort_keys=True)
    return Step(
        stage=record.name,
        command=record.command,
        revision=revision,
        is_dirty=is_dirty,
        run_id=run and run["run_id"],
        params=record.params,
        params_sha256=hashlib.sha256(params.encode()).hexdigest(),
        inputs={path: md5 for path, md5 in record.deps.items() if not path.endswith(".py")},
        outs=record.outs,
        num_modules=sum(path.endswith(".py") for path in record.deps),
        archives=_archives(subject, record),
    )


def _archives(subject: Subject, record: Record) -> list[dict]:
    stage, _, dataset = record.name.partition("@")
    if stage != "fetch":
        return []
    path = layout.source(dataset)
    # an older source.json lies in DVC's cache at best: shown only where it is the recorded one
    if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() in record.outs.values():
        return source_schema.read(path)["files"]
    return []


def _judged(line: dict) -> set[str]:
    """The hashes of the models that a decision is about."""
    models = (line["challenger"], line["champion_before"], line["champion_after"])
    return {model["dvc_hash"] for model in models if model is not None}


def to_json(lineage: Lineage, checked: list[Checked] | None) -> str:
    """Return a lineage, and its check where there was one, as JSON with whole hashes."""
    value = {
        "asked": lineage.subject.asked,
        "stage": lineage.subject.stage,
        "lock_revision": lineage.subject.revision,
        "notes": lineage.subject.notes,
        "steps": [step._asdict() for step in lineage.steps],
        "decisions": lineage.decisions,
    }
    if checked is not None:
        value["checked"] = [
            {
                "stage": one.stage,
                "state": one.state,
                "num_compared": one.num_compared,
                "findings": [finding._asdict() for finding in one.findings],
            }
            for one in checked
        ]
        value["differs_first_at"] = first_difference(checked)
    return json.dumps(value, indent=1)


def first_difference(checked: list[Checked]) -> str | None:
    """Return the stage where differences start; None where there are none."""
    return next((one.stage for one in checked if one.state == "differs"), None)


def text(lineage: Lineage) -> str:
    """Compose a lineage for the terminal, sources first."""
    subject = lineage.subject
    where = (
        f"{layout.DVC_LOCK} of {subject.revision[:DIGITS]}" if subject.revision else f"the present {layout.DVC_LOCK}"
    )
    lines = [f"{subject.asked}: {subject.stage}, from {where}", *(f"  {note}" for note in subject.notes)]
    for step in lineage.steps:
        lines += ["", *_step_lines(step)]
    lines += ["", "decision"]
    for line in lineage.decisions:
        lines += [f"  {one}" for one in _decision(line)]
    if not lineage.decisions:
        lines += [f"  none in {layout.PROMOTIONS}"]
    return "\n".join(_cut(line) for line in lines)


def _step_lines(step: Step) -> list[str]:
    revision = step.revision[:DIGITS] if step.revision else "not committed"
    if step.is_dirty:
        revision += " with local changes"
    head = f"{step.stage:24}revision {revision}"
    if step.is_dirty is not None:
        head += f"   run {step.run_id or 'not known to MLflow when it ended'}"
    lines = [head]
    for row in step.archives[:ARCHIVES_SHOWN]:
        lines.append(_row("archive", f"{row['name']} ({row['num_bytes']:,} bytes)", "sha256", row["sha256"]))
    if len(step.archives) > ARCHIVES_SHOWN:
        num_bytes = sum(row["num_bytes"] for row in step.archives)
        lines.append(f"  {'':8} … {len(step.archives)} files, {num_bytes:,} bytes; all of them with --json")
    lines += [_row("reads", path, "md5", md5) for path, md5 in step.inputs.items()]
    values = " ".join(f"{key}={value}" for key, value in _flat(step.params).items())
    lines.append(_row("params", values, "sha256", step.params_sha256))
    lines.append(f"  {'code':8} {step.num_modules} modules, each with its md5 in {layout.DVC_LOCK}")
    return lines + [_row("writes", path, "md5", md5) for path, md5 in step.outs.items() if Path(path).parent != RUNS]


def _row(what: str, value: str, kind: str, digest: str) -> str:
    room = LINE_WIDTH - 2 - 8 - 1 - 2 - len("sha256 ") - DIGITS - len(".dir")
    shown = value if len(value) <= room else value[: room - 1] + "…"
    folder = ".dir" if digest.endswith(".dir") else ""
    return f"  {what:8} {shown:{room}}  {kind:6} {digest[:DIGITS]}{folder}".rstrip()


def _flat(value: dict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        flat |= _flat(inner, f"{name}.") if isinstance(inner, dict) else {name: inner}
    # the section's own name says nothing that the stage's has not said
    return flat if prefix else {name.partition(".")[2] or name: inner for name, inner in flat.items()}


def _decision(line: dict) -> list[str]:
    names = {key: line[key] and line[key]["replica"] for key in ("challenger", "champion_before", "champion_after")}
    against = names["champion_before"] or "nobody"
    head = f"line {line['number']}, {line['time']}, {line['action']}: "
    if line["verdict"] is None:
        return [f"{head}{against} gave way to {names['champion_after']} ({line['reason'] or 'no reason given'})"]
    failed = [check["text"] for check in line["verdict"]["checks"] if not check["passed"]]
    outcome = f"champion of {line['model']}: {names['champion_after'] or 'none'}"
    return [f"{head}{names['challenger']} against {against}; {outcome}", *(f"  refused: {text}" for text in failed)]


def verdict(checked: list[Checked]) -> str:
    """Compose what a check found: a line each stage, its findings below, and where differences start."""
    width = max(len(one.stage) for one in checked)
    lines = ["", "verified by reading every byte"]
    for one in checked:
        absent = sum(finding.state == "absent" for finding in one.findings)
        missing = f", {absent} absent (not rehashed)" if absent else ""
        lines.append(f"  {one.stage:{width}}  {one.state:9}  {one.num_compared} compared{missing}")
        for finding in one.findings:
            lines += _finding_lines(finding)
    first = first_difference(checked)
    lines += ["", f"differs first at {first}" if first else "identical: everything that is here is as recorded"]
    return "\n".join(_cut(line) for line in lines)


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"    {finding.state}: {finding.what}"]
    if finding.state == "differs" or finding.found != "nothing":
        lines.append(f"      found {finding.found}, wanted {finding.wanted}")
    return lines + ([f"      {finding.note}"] if finding.note else [])


def _cut(line: str) -> str:
    return line if len(line) <= LINE_WIDTH else line[: LINE_WIDTH - 1] + "…"
