"""What a reproduction found, gathered over strategies and seeds: for the terminal, and for the tables of documents."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.replicas import Replicas
from rootstock.evaluation.metrics import spread
from rootstock.evaluation.verdict import VIEW_NAMES, judge, percent
from rootstock.ops import configuration, runs
from rootstock.schema import metrics as metrics_schema
from rootstock.schema import results as schema
from rootstock.schema import selection as selection_schema

HEADINGS = ("strategy", "seed", "mean per-class accuracy", "top-1 accuracy")
LINE_WIDTH = 110  # characters of a terminal
NEXT = (
    (str(layout.REPORT), "the whole story on one page; open it in a browser"),
    ("make ui", "every run in MLflow: curves, parameters, machine"),
    ("make repro DATA=mine", "your own images: three lines in conf/data/mine.yaml, see README"),
)


class Found(NamedTuple):
    """The files that judge the replicas."""

    selection: dict
    metrics: dict[tuple[str, int], dict]


def gather() -> Found:
    """Read the selection and the metrics of every replica that params.yaml names.

    Raises:
        FileNotFoundError: naming a file that a reproduction has not made yet.
        ContractError: a file breaks its contract.
    """
    replicas = load_section(layout.PARAMS, Replicas, "replicas")
    names = [(strategy, seed) for strategy in replicas.strategies for seed in replicas.seeds]
    for path in (layout.SELECTION, *(layout.metrics(*name) for name in names)):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; `make repro` makes it")
    return Found(
        selection_schema.read(layout.SELECTION), {name: metrics_schema.read(layout.metrics(*name)) for name in names}
    )


def summary(found: Found) -> str:
    """Compose the text that ends `make repro`: a table of replicas, the verdict, and where to look next."""
    view = found.selection["view"]
    verdict = judge(selection=found.selection, metrics=found.metrics)
    selected = found.selection["selected"]["strategy"], found.selection["selected"]["seed"]
    rows = [HEADINGS]
    for strategy in _strategies(found):
        members = {name: value[verdict.split][view] for name, value in found.metrics.items() if name[0] == strategy}
        for number, (name, judged) in enumerate(members.items()):
            cells = [_interval(judged[accuracy]) for accuracy in schema.ACCURACIES]
            mark = "  ← chosen" if name == selected else ""
            rows.append((strategy if number == 0 else "", str(name[1]), cells[0], cells[1] + mark))
        if len(members) > 1:
            over = [spread([judged[name]["value"] for judged in members.values()]) for name in schema.ACCURACIES]
            rows.append(("", "mean", *(f"{percent(one.mean)} ± {percent(one.sd)}" for one in over)))
    title = f"{verdict.split}: {verdict.headline['num_images']} images, {VIEW_NAMES[view]}; per cent [95 % interval]"
    notes = [textwrap.fill(text, width=LINE_WIDTH) for text in (verdict.chosen, verdict.comparison)]
    model = (str(layout.finetune(*selected)), "the chosen model: weights.safetensors and model.json")
    width = max(len(what) for what, _ in (*NEXT, model))
    steps = [f"  {what:{width}}  {why}" for what, why in (NEXT[0], model, *NEXT[1:])]
    return "\n".join(["", title, "", *_aligned(rows), "", *notes, "", "Where to look next", *steps])


def measured(found: Found, *, title: str) -> dict:
    """Compose a table of results for docs/results; the value of `rootstock.schema.results`.

    Args:
        title: what was measured, in words.

    Raises:
        FileNotFoundError: a run's file is missing.
    """
    view = found.selection["view"]
    split = judge(selection=found.selection, metrics=found.metrics).split
    records = {("pretrain",): runs.read(layout.run("pretrain"))}
    records |= {
        (stage, *name): runs.read(layout.run(stage, *name))
        for stage in ("finetune", "evaluate")
        for name in found.metrics
    }
    rows = []
    for strategy in _strategies(found):
        members = {seed: value[split][view] for (name, seed), value in found.metrics.items() if name == strategy}
        rows.append(
            {
                "strategy": strategy,
                "seeds": list(members),
                "split": split,
                "view": view,
                "num_images": next(iter(members.values()))["num_images"],
                "wall_seconds": sum(records["finetune", strategy, seed]["wall_seconds"] for seed in members),
                **{name: _over_seeds([judged[name] for judged in members.values()]) for name in schema.ACCURACIES},
            }
        )
    return {
        "title": title,
        "command": configuration.command(configuration.choice(layout.PARAMS)),
        "hardware": _together(_machine(record["hardware"]) for record in records.values()),
        "commit": _together(_revision(record["environment"]) for record in records.values()),
        "wall_seconds": sum(record["wall_seconds"] for record in records.values()),
        "pretrain_wall_seconds": records["pretrain",]["wall_seconds"],
        "rows": rows,
    }


def write(path: Path, value: dict) -> None:
    """Write a table of results after checking it."""
    schema.write(path, value)


def _strategies(found: Found) -> list[str]:
    return list(dict.fromkeys(strategy for strategy, _ in found.metrics))


def _over_seeds(intervals: list[dict]) -> dict:
    values = [interval["value"] for interval in intervals]
    over = spread(values)
    if over.low is None or over.high is None:  # a single seed: the interval over its images
        low, high = intervals[0]["low"], intervals[0]["high"]
    else:  # Student's interval knows nothing of the ends of an accuracy
        low, high = max(over.low, 0.0), min(over.high, 1.0)
    return {"mean": over.mean, "sd": over.sd, "low": low, "high": high, "values": values}


def _interval(one: dict) -> str:
    return f"{percent(one['value'])} [{percent(one['low'])}, {percent(one['high'])}]"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _machine(hardware: dict[str, Any]) -> str:
    gpus = [gpu["name"] if isinstance(gpu, dict) else str(gpu) for gpu in hardware["gpus"]]
    cores = f"{hardware['num_cores']} core{'s' if hardware['num_cores'] != 1 else ''}"
    return ", ".join([hardware["cpu"], cores, f"{hardware['memory_gb']:.0f} GB", *(gpus or ["no GPU"])])


def _revision(environment: dict[str, Any]) -> str:
    if environment["git_revision"] is None:
        return "no commit"
    return environment["git_revision"][:12] + (" with local changes" if environment["git_dirty"] else "")


def _together(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
