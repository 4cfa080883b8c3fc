"""The verdict in plain sentences: which model was chosen, how good it is, and whether pretraining helped."""

from typing import NamedTuple

from rootstock.evaluation.metrics import Spread, spread

CONTROL = "scratch"  # the strategy that starts from nothing pretrained
VIEW_NAMES = {"center": "one central crop", "ten": "ten crops"}
METRIC_NAMES = {"top1": "top-1 accuracy", "mean_per_class": "mean per-class accuracy"}


class Verdict(NamedTuple):
    """What the top of the report says."""

    split: str  # whose figures are reported: test, or val where the collection has no test images
    headline: dict  # the chosen model's metrics on that split, as in metrics.json
    chosen: str
    comparison: str
    apart: bool | None  # None: there is nothing to compare


def judge(*, selection: dict, metrics: dict[tuple[str, int], dict]) -> Verdict:
    """Compose the verdict from the selection and every replica's metrics."""
    strategy, seed = selection["selected"]["strategy"], selection["selected"]["seed"]
    view = selection["view"]
    own = metrics[strategy, seed]
    split = "test" if view in own.get("test", {}) else "val"
    judged = next(row for row in selection["candidates"] if (row["strategy"], row["seed"]) == (strategy, seed))
    chosen = (
        f"The chosen model is {strategy}, seed {seed}: the best of {len(selection['candidates'])} replicas by "
        f"{METRIC_NAMES[selection['metric']]} on validation: {percent(judged['value'])} % "
        f"({judged['num_images']} images, {VIEW_NAMES[view]})."
    )
    comparison, apart = _compare(selection, metrics, split, view)
    return Verdict(split, own[split][view], chosen, comparison, apart)


def percent(share: float) -> str:
    """Write a share of one in per cent, without the sign."""
    return f"{100 * share:.1f}"


def _compare(selection: dict, metrics: dict[tuple[str, int], dict], split: str, view: str) -> tuple[str, bool | None]:
    """Compare the chosen strategy (or the best one, if the control was chosen) with the control, over seeds."""
    chosen = selection["selected"]["strategy"]
    others = sorted({strategy for strategy, _ in metrics if strategy != CONTROL})
    if not others or not any(strategy == CONTROL for strategy, _ in metrics):
        return (
            f"Nothing to compare: pretraining is judged against a strategy named {CONTROL}, trained beside another.",
            None,
        )
    validation = {strategy: _over_seeds(metrics, strategy, "val", view).mean for strategy in others}
    pretrained = max(others, key=lambda name: validation[name]) if chosen == CONTROL else chosen
    spreads = [_over_seeds(metrics, name, split, view) for name in (pretrained, CONTROL)]
    ends = [_ends(metrics, name, split, view, one) for name, one in zip((pretrained, CONTROL), spreads, strict=True)]
    apart = ends[0][0] > ends[1][1] or ends[1][0] > ends[0][1]
    gain = spreads[0].mean - spreads[1].mean
    texts = [f"{percent(one.mean)}{f' ± {percent(one.sd)}' if one.sd is not None else ''} %" for one in spreads]
    alone = any(one.num_values == 1 for one in spreads)
    kind = (
        "intervals over images (a single seed has no spread over seeds)"
        if alone
        else "intervals of the means over seeds"
    )
    return (
        f"With pretraining ({pretrained}, {_seeds(spreads[0])}) {texts[0]} mean per-class accuracy on {split}, "
        f"from scratch ({_seeds(spreads[1])}) {texts[1]}: pretraining is {percent(abs(gain))} points "
        f"{'better' if gain >= 0 else 'worse'}, and the 95 % {kind}, {_text(ends[0])} and {_text(ends[1])}, "
        f"{'are apart' if apart else 'overlap'}."
    ), apart


def _over_seeds(metrics: dict[tuple[str, int], dict], strategy: str, split: str, view: str) -> Spread:
    return spread(
        [
            value[split][view]["mean_per_class"]["value"]
            for (name, _), value in sorted(metrics.items())
            if name == strategy
        ]
    )


def _ends(
    metrics: dict[tuple[str, int], dict], strategy: str, split: str, view: str, over_seeds: Spread
) -> tuple[float, float]:
    """Return the interval over seeds; of a single seed, the one over images."""
    if over_seeds.low is not None and over_seeds.high is not None:
        # Student's interval knows nothing of the ends of an accuracy
        return max(over_seeds.low, 0.0), min(over_seeds.high, 1.0)
    (only,) = (value for (name, _), value in metrics.items() if name == strategy)
    interval = only[split][view]["mean_per_class"]
    return interval["low"], interval["high"]


def _seeds(one: Spread) -> str:
    return f"{one.num_values} seed{'s' if one.num_values > 1 else ''}"


def _text(ends: tuple[float, float]) -> str:
    return f"{percent(ends[0])} to {percent(ends[1])}"
