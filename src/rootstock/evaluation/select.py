"""Select: the best replica by validation; `test` never decides anything."""

from collections.abc import Iterable
from pathlib import Path

SPLIT = "val"


def choose(candidates: Iterable[dict], *, view: str, metric: str) -> dict:
    """Choose the replica with the highest value on validation.

    Ties go to the higher top-5 accuracy, then the lower log loss, then the first by strategy and seed, so the choice
    does not depend on the order of the candidates.

    Args:
        candidates: {strategy, seed, metrics}, at least one; metrics as `metrics.compute` gives them.
        view: the view whose metrics decide.
        metric: `top1` or `mean_per_class`.

    Returns:
        The value of `rootstock.schema.selection`: candidates (by strategy and seed), metric, selected, split, view.

    Raises:
        ValueError: no candidates, one without the view's validation metrics, or candidates judged on unequal numbers
            of images.
    """
    ranked, rows = [], []
    for candidate in sorted(candidates, key=lambda candidate: (candidate["strategy"], candidate["seed"])):
        name = f"{candidate['strategy']}-{candidate['seed']}"
        judged = candidate["metrics"].get(SPLIT, {})
        if view not in judged:
            raise ValueError(
                f"replica {name}: select.view: found {SPLIT} metrics of views {sorted(judged)}, wanted {view}; "
                "add it to evaluate.views"
            )
        metrics = judged[view]
        value = metrics[metric]["value"]
        row = {"strategy": candidate["strategy"], "seed": candidate["seed"]}
        ranked.append(((-value, -metrics["top5"]["value"], metrics["log_loss"], *row.values()), row))
        rows.append({**row, "num_images": metrics["num_images"], "value": value})
    if not rows:
        raise ValueError("select: found no replicas, wanted at least one; see `replicas` in params.yaml")
    counts = {f"{row['strategy']}-{row['seed']}": row["num_images"] for row in rows}
    if len(set(counts.values())) > 1:
        raise ValueError(f"select: found unequal numbers of {SPLIT} images {counts}, wanted the same images for all")
    return {
        "candidates": rows,
        "metric": metric,
        "selected": min(ranked, key=lambda pair: pair[0])[1],
        "split": SPLIT,
        "view": view,
    }


def unexpected_folders(folder: Path, wanted: Iterable[str]) -> None:
    """Refuse folders that no replica in the parameters names: DVC does not notice that a replica was dropped.

    Args:
        folder: where the replicas' folders lie; it may be missing.
        wanted: the names of the replicas in the parameters.

    Raises:
        ValueError: naming the folders.
    """
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    extra = sorted(found - set(wanted))
    if extra:
        raise ValueError(
            f"{folder}: found {', '.join(extra)}, which `replicas` in params.yaml does not name, "
            f"wanted only {', '.join(sorted(wanted))}; `make tidy` removes them"
        )
