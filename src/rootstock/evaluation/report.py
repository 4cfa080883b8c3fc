"""The report: one static HTML page that needs neither network nor scripts; it draws only what it is handed.

Layout: H, W, 3 are height, width and RGB; K classes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from rootstock.evaluation import figures
from rootstock.evaluation import metrics as measures
from rootstock.evaluation.leaks import leaks
from rootstock.evaluation.mistakes import worst_confusions, worst_errors
from rootstock.evaluation.verdict import METRIC_NAMES, VIEW_NAMES, Verdict, judge, percent

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_TABLE_CLASSES = 20  # a confusion matrix of more is a picture, and so are its accuracies
NUM_HARDEST = 10
NUM_PAIRS = 12
NUM_REASONS = 8


def build(
    *,
    target_name: str,
    selection: dict,
    metrics: dict[tuple[str, int], dict],
    predictions_frame: pd.DataFrame,
    histories: dict[str, pd.DataFrame],
    stats: dict[str, dict],
    mean_images: dict[str, np.ndarray],
    galleries: list[dict],
    error_images: dict[str, np.ndarray],
    duplicates: dict[str, dict],
    rejects: dict[str, pd.DataFrame],
    runs: dict[str, dict],
    class_names: list[str],
    commands: list[str],
    num_errors: int,
    num_duplicates: int,
    num_rejects: int,
) -> str:
    """Build the page. Every name is escaped; figures are inline.

    Args:
        target_name: what the target collection is called.
        selection: as `rootstock.schema.selection` reads it.
        metrics: each replica's, by (strategy, seed), as `rootstock.schema.metrics` reads them.
        predictions_frame: the chosen replica's predictions.
        histories: by training's name: `pretrain`, `<strategy>-<seed>` (also with `finetune-` before it).
        stats: by dataset, the values of `rootstock.schema.stats`' JSON, on the [0, 1] scale.
        mean_images: by dataset, uint8 (H, W, 3).
        galleries: title, caption, rows (lists of uint8 (H, W, 3)) and, if wanted, labels (a text a row).
        error_images: uint8 (H, W, 3) by key, for `mistakes.worst_errors` of the chosen view; keys may be missing.
        duplicates: by dataset, as `leaks` takes them.
        rejects: by dataset, as `rootstock.schema.manifest` REJECTS.
        runs: by run's name, as in reports/runs/*.json: wall_seconds, images_per_second, hardware; any may be missing.
        class_names: K names, index = label.
        commands: lines for a shell, each with a comment.
        num_errors: at most so many of the worst errors.
        num_duplicates: at most so many pairs of each dataset's duplicates.
        num_rejects: at most so many rows of each dataset's rejects.

    Returns:
        HTML.
    """
    verdict = judge(selection=selection, metrics=metrics)
    rows = predictions_frame
    rows = rows[(rows["split"] == verdict.split) & (rows["view"] == selection["view"])]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "duration": duration, "grouped": grouped}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    strategies = list(dict.fromkeys(strategy for strategy, _ in sorted(metrics)))
    return template.render(
        target_name=target_name,
        verdict=verdict,
        selection=selection,
        view_names=VIEW_NAMES,
        metric_name=METRIC_NAMES[selection["metric"]],
        class_names=class_names,
        strategies=_strategies(metrics, strategies, verdict.split),
        replicas=_replicas(metrics, selection, verdict.split),
        replicas_figure=_replicas_figure(metrics, selection, verdict),
        trainings=_trainings(histories, strategies),
        statistics=[_statistics(name, values, mean_images.get(name)) for name, values in stats.items()],
        galleries=[_gallery(gallery) for gallery in galleries],
        mistakes=_mistakes(rows, error_images, num_errors),
        classes=_classes(rows, class_names),
        reliability=figures.reliability(measures.reliability(rows)),
        duplicates=[leaks(name, num_pairs=num_duplicates, **found) for name, found in duplicates.items()],
        rejects=[_rejects(name, frame, num_rejects) for name, frame in rejects.items()],
        runs=[_run(name, run) for name, run in sorted(runs.items())],
        commands=commands,
    )


def duration(seconds: float) -> str:
    """Write a duration in the two units that fit."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def grouped(number: int) -> str:
    """Write an integer with a narrow space at the thousands."""
    return f"{number:,}".replace(",", "\u202f")


def _strategies(metrics: dict[tuple[str, int], dict], strategies: list[str], split: str) -> list[dict]:
    """Return a row a strategy and view: the spread over seeds of each accuracy, on `split` and on validation."""
    table = []
    for strategy in strategies:
        members = [value for (name, _), value in sorted(metrics.items()) if name == strategy]
        for view in members[0][split]:
            judged = [member[split][view] for member in members]
            values = {
                name: measures.spread([one[name]["value"] for one in judged])
                for name in ("mean_per_class", "top1", "top5")
            }
            validation = [one["val"][view]["mean_per_class"]["value"] for one in members if view in one.get("val", {})]
            values["validation"] = measures.spread(validation) if validation else None
            table.append({"strategy": strategy, "view": view, "num_images": judged[0]["num_images"], **values})
    return table


def _replicas(metrics: dict[tuple[str, int], dict], selection: dict, split: str) -> list[dict]:
    selected = selection["selected"]["strategy"], selection["selected"]["seed"]
    validation = {(row["strategy"], row["seed"]): row["value"] for row in selection["candidates"]}
    return [
        {
            "strategy": strategy,
            "seed": seed,
            "view": view,
            "selected": (strategy, seed) == selected,
            "validation": validation[strategy, seed] if view == selection["view"] else None,
            **judged,
        }
        for (strategy, seed), value in sorted(metrics.items())
        for view, judged in value[split].items()
    ]


def _replicas_figure(metrics: dict[tuple[str, int], dict], selection: dict, verdict: Verdict) -> str:
    intervals = {
        name: value[verdict.split][selection["view"]]["mean_per_class"] for name, value in sorted(metrics.items())
    }
    points = [figures.Point(group=strategy, **interval) for (strategy, _), interval in intervals.items()]
    return figures.replicas(points, label=f"mean per-class accuracy on {verdict.split} (%)")


def _trainings(histories: dict[str, pd.DataFrame], strategies: Iterable[str]) -> list[dict]:
    """Return a figure for pretraining and one for all fine-tunings, those that there are."""
    fine = {name.removeprefix("finetune-"): history for name, history in histories.items() if name != "pretrain"}
    lines = [
        (strategy, history)
        for strategy in strategies
        for name, history in sorted(fine.items())
        if name.rpartition("-")[0] == strategy
    ]
    parts = {
        "Pretraining on the source": [("pretrain", histories["pretrain"])] if "pretrain" in histories else [],
        "Fine-tuning on the target, one line a seed": lines,
    }
    return [{"title": title, "figure": figures.curves(part)} for title, part in parts.items() if part]


def _statistics(dataset: str, values: dict, mean_image: np.ndarray | None) -> dict:
    counts = values["class_counts"]
    return {
        **values,
        "dataset": dataset,
        "mean_image": None if mean_image is None else figures.picture(mean_image),
        "num_classes": len(counts),
        "smallest_class": min(counts, default=0),
        "largest_class": max(counts, default=0),
        "components": [
            {
                "eigenvalue": eigenvalue,
                "share": eigenvalue / max(sum(values["eigenvalues"]), 1e-12),
                "vector": vector,
                "colours": _axis(values["channel_mean"], eigenvalue, vector),
            }
            for eigenvalue, vector in zip(values["eigenvalues"], values["eigenvectors"], strict=True)
        ],
    }


def _axis(mean: list[float], eigenvalue: float, vector: list[float]) -> list[str]:
    """Return five CSS colours from −2 to 2 standard deviations along a principal axis, through the mean colour."""
    deviations = np.linspace(-2, 2, 5)[:, None] * np.sqrt(max(eigenvalue, 0.0)) * np.asarray(vector)
    colours = np.round(255 * np.clip(np.asarray(mean) + deviations, 0, 1)).astype(int)
    return [f"rgb({red}, {green}, {blue})" for red, green, blue in colours.tolist()]


def _gallery(gallery: Mapping[str, Any]) -> dict:
    labels = gallery.get("labels", [""] * len(gallery["rows"]))
    rows = [
        {"label": label, "images": [figures.picture(image) for image in row]}
        for label, row in zip(labels, gallery["rows"], strict=True)
    ]
    return {"title": gallery["title"], "caption": gallery["caption"], "rows": rows}


def _mistakes(rows: pd.DataFrame, error_images: dict[str, np.ndarray], num_errors: int) -> dict:
    counts = measures.confusion(rows)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    errors = worst_errors(rows, num_errors=num_errors).to_dict("records")
    for error in errors:
        image = error_images.get(error["key"])
        error["image"] = None if image is None else figures.picture(image)
    small = len(counts) <= MAX_TABLE_CLASSES
    return {
        "counts": counts.tolist() if small else None,
        "opacity": (0.8 * figures.opacity(shares)).round(3).tolist() if small else None,
        "picture": None if small else figures.heat_map(shares),
        "pairs": worst_confusions(counts, num_pairs=NUM_PAIRS).to_dict("records"),
        "errors": errors,
        "num_wrong": int(counts.sum() - np.trace(counts)),
    }


def _classes(rows: pd.DataFrame, class_names: list[str]) -> dict:
    table = measures.per_class(rows).assign(name=class_names)
    hardest = table.sort_values(["accuracy", "label"], ignore_index=True)
    small = len(table) <= MAX_TABLE_CLASSES
    return {
        "figure": None if small else figures.class_accuracies(table),
        "shown": hardest.to_dict("records") if small else hardest.head(NUM_HARDEST).to_dict("records"),
        "rest": [] if small else table.to_dict("records"),
    }


def _rejects(dataset: str, frame: pd.DataFrame, num_rejects: int) -> dict:
    # a duplicate's reason names the other image: all of them are one reason here
    reasons = frame["reason"].str.replace(r"^duplicate: .*", "duplicate of another image", regex=True)
    reasons = reasons.value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    return {
        "dataset": dataset,
        "num_images": len(frame),
        "reasons": list(reasons.head(NUM_REASONS).items()),
        "num_other": int(reasons.iloc[NUM_REASONS:].sum()),
        "rows": frame.head(num_rejects).to_dict("records"),
    }


def _run(name: str, run: Mapping[str, Any]) -> dict:
    return {
        "name": name,
        "wall_seconds": run.get("wall_seconds"),
        "images_per_second": run.get("images_per_second"),
        "hardware": _hardware(run.get("hardware")),
    }


def _hardware(found: object) -> str:
    """Put a machine in a line: its processor, cores, memory and devices."""
    if not isinstance(found, Mapping):
        return "" if found is None else str(found)
    units = (
        ("device", "on {}"),
        ("cpu", "{}"),
        ("num_cores", "{} cores"),
        ("memory_gb", "{} GB"),
        ("num_threads", "{} threads"),
    )
    parts = [form.format(found[name]) for name, form in units if found.get(name) is not None]
    gpus = found.get("gpus") or []
    return ", ".join([*parts, *(str(gpu["name"]) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus)])
