"""The gate: whether a challenger replaces the champion, decided from their predictions on the same images.

Five checks, all of which must pass: better, per_class, class_floor, calibration, latency. The first one decides; the
others only refuse. Without a champion, the first asks for more than chance, and the second and third pass.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

from rootstock.config.promote import Promote
from rootstock.evaluation.compare import Comparison, compare
from rootstock.evaluation.paired_test import detectable_difference, num_wanted, p_value

SEED = 0  # of the bootstrap's draws: the same tables give the same decision
POWER = 0.85  # 0.8 is promised; the rest is room for what the other checks refuse


class Check(NamedTuple):
    """One demand, what was found, and the sentence that says it; None where there is nothing to compare."""

    name: str
    passed: bool
    found: float | None
    wanted: float | None
    text: str


class Verdict(NamedTuple):
    """The decision with its checks, in order, and its evidence: values as JSON has them."""

    promoted: bool
    checks: list[Check]
    evidence: dict


def judge(
    pairs: pd.DataFrame | None,
    challenger_metrics: dict,
    *,
    champion_metrics: dict | None,
    class_names: list[str],
    latency_ms: float,
    num_candidates: int,
    num_judged_before: int,
    limits: Promote,
) -> Verdict:
    """Decide whether the challenger replaces the champion.

    Args:
        pairs: what `compare.align` gives for A, the champion, and B, the challenger; None without a champion.
        challenger_metrics, champion_metrics: of one split and view, on these images, as `metrics.compute` gives them.
        class_names: by label.
        latency_ms: of the challenger, one image at a time, median.
        num_candidates: from how many the challenger was chosen on these very images; the level is divided by it, since
            each of them might have looked better by chance.
        num_judged_before: other challengers that were judged on exactly these images before; it goes into the evidence.
    """
    assert num_candidates >= 1, num_candidates
    assert latency_ms > 0, latency_ms
    level = limits.level / num_candidates
    calibration = _calibration(challenger_metrics["ece"], champion_metrics and champion_metrics["ece"], limits.max_ece)
    speed = _latency(latency_ms, limits.max_latency_ms)
    evidence = {
        "challenger": _summary(challenger_metrics),
        "latency_ms": latency_ms,
        "level": level,
        "limits": limits.model_dump(),
        "num_candidates": num_candidates,
        "num_classes": challenger_metrics["num_classes"],
        "num_images": challenger_metrics["num_images"],
        "num_judged_before": num_judged_before,
    }
    if pairs is None:
        assert champion_metrics is None, "metrics of a champion without its predictions"
        first = _above_chance(challenger_metrics, level=level, num_candidates=num_candidates)
        checks = [first, *_nothing_to_compare(), calibration, speed]
        compared = ("champion", "detectable_difference", "difference", "num_only_challenger", "num_only_champion")
        evidence |= dict.fromkeys((*compared, "per_class_difference", "worst_class")) | {"p_value": first.found}
    else:
        _assert_same(pairs, champion_metrics, challenger_metrics)
        found, lost = compare(pairs, seed=SEED), _classes(pairs, level=limits.level)
        p = p_value(found.num_only_a, found.num_only_b)
        checks = [
            _better(found, p=p, level=level, num_candidates=num_candidates),
            _per_class(found, margin=limits.margin),
            _class_floor(lost, class_names=class_names, floor=limits.class_floor),
            calibration,
            speed,
        ]
        evidence |= {"champion": _summary(champion_metrics), "p_value": p} | _differences(found, level=level)
        evidence["worst_class"] = _worst_class(lost, class_names=class_names, floor=limits.class_floor)
    return Verdict(all(check.passed for check in checks), checks, dict(sorted(evidence.items())))


def describe(verdict: Verdict, *, challenger: str, champion: str | None) -> str:
    """Write a verdict for a person: each check with its sentence, and what these images could have shown.

    Args:
        challenger, champion: what to call them; None without a champion.
    """
    known = verdict.evidence
    against = f"against {champion}" if champion else "without a champion to replace"
    lines = [
        f"{challenger} {against}: {'promoted' if verdict.promoted else 'refused'} "
        f"on {known['num_images']} images of {known['num_classes']} classes"
    ]
    lines += [f"  {check.name:12}{'passed' if check.passed else 'FAILED'}  {check.text}" for check in verdict.checks]
    if known["champion"] is not None:
        lines.append(_promise(known["detectable_difference"], known["champion"]["top1"]))
    lines.append(f"other challengers judged before on exactly these images: {known['num_judged_before']}")
    return "\n".join(lines)


def _better(found: Comparison, *, p: float, level: float, num_candidates: int) -> Check:
    ahead = found.num_only_b - found.num_only_a
    kind = "better" if p <= level else "not shown to be better" if ahead > 0 else "equal" if ahead == 0 else "worse"
    text = (
        f"{kind}: {_points(found.difference)} points {_range(found.low, found.high)} in top-1 accuracy, "
        f"{_percent(found.accuracy_a)} % → {_percent(found.accuracy_b)} %; "
        f"right alone on {found.num_only_b} images, the champion on {found.num_only_a}: {_p(p, level, num_candidates)}"
    )
    return Check("better", p <= level, p, level, text)


def _above_chance(metrics: dict, *, level: float, num_candidates: int) -> Check:
    """Guessing by class shares beats 1/K in top-1 accuracy where classes are unequal, yet not in the mean per class."""
    chance, num_images = 1 / metrics["num_classes"], metrics["num_images"]
    num_correct = round(metrics["top1"]["value"] * num_images)
    p = float(binom.sf(num_correct - 1, num_images, chance))
    low = metrics["mean_per_class"]["low"]
    text = (
        f"top-1 accuracy {_percent(metrics['top1']['value'])} % of {num_images} images, chance is "
        f"{_percent(chance)} %: {_p(p, level, num_candidates)}; mean per class at least {_percent(low)} %, "
        "wanted above chance"
    )
    return Check("better", p <= level and low > chance, p, level, text)


def _nothing_to_compare() -> list[Check]:
    return [Check(name, True, None, None, "no champion to compare with") for name in ("per_class", "class_floor")]


def _per_class(found: Comparison, *, margin: float) -> Check:
    text = (
        f"mean per-class accuracy {_points(found.per_class_difference)} points "
        f"{_range(found.per_class_low, found.per_class_high)}, wanted the lower end at or above {_points(-margin)}"
    )
    return Check("per_class", found.per_class_low >= -margin, found.per_class_low, -margin, text)


def _classes(pairs: pd.DataFrame, *, level: float) -> pd.DataFrame:
    """Return by label num_images, accuracy_a, accuracy_b, and whether the images show that A is better.

    Images a class are few: with a hundred classes most challengers, better ones too, have one that merely counts lower
    (`some_class_below_floor` in benchmarks/results/gate.json).
    """
    labels, index = np.unique(pairs["label"].to_numpy(), return_inverse=True)
    a, b = pairs["correct_a"].to_numpy(), pairs["correct_b"].to_numpy()
    num_images = np.bincount(index)
    num_a, num_b, only_a, only_b = (np.bincount(index, right).astype(int) for right in (a, b, a & ~b, b & ~a))
    return pd.DataFrame(
        {
            "num_images": num_images,
            "accuracy_a": num_a / num_images,
            "accuracy_b": num_b / num_images,
            "lost": only_a >= num_wanted(only_a + only_b, level=level),
            "tellable": num_images >= num_wanted(num_images, level=level),
        },
        index=labels,
    )


def _class_floor(classes: pd.DataFrame, *, class_names: list[str], floor: float) -> Check:
    fallen = classes[classes["lost"] & (classes["accuracy_b"] < floor)]
    worst = _worst_class(classes, class_names=class_names, floor=floor)
    number = f"{len(fallen)} {'class' if len(fallen) == 1 else 'classes'}" if len(fallen) else "no class"
    text = (
        f"{number} shown to have fallen below {_percent(floor)} %, {'worst' if len(fallen) else 'weakest'} "
        f"{worst['name']!r}: {_percent(worst['champion'])} % → {_percent(worst['challenger'])} % "
        f"of {worst['num_images']} images"
    )
    too_small = int((~classes["tellable"]).sum())
    if too_small:
        text += f"; {too_small} classes have too few images to show a loss"
    return Check("class_floor", fallen.empty, worst["challenger"], floor, text)


def _worst_class(classes: pd.DataFrame, *, class_names: list[str], floor: float) -> dict:
    """The class that lost most among those that fell below the floor, else the challenger's weakest class."""
    fallen = classes[classes["lost"] & (classes["accuracy_b"] < floor)]
    label = (
        (fallen["accuracy_b"] - fallen["accuracy_a"]).idxmin() if len(fallen) else int(classes["accuracy_b"].idxmin())
    )
    row = classes.loc[label]
    return {
        "challenger": float(row["accuracy_b"]),
        "champion": float(row["accuracy_a"]),
        "name": class_names[label],
        "num_images": int(row["num_images"]),
    }


def _calibration(ece: float, champion_ece: float | None, max_ece: float) -> Check:
    limit = max_ece if champion_ece is None else max(max_ece, champion_ece)
    text = f"expected calibration error {ece:.3f}, wanted at most {limit:.3f}"
    if limit > max_ece:
        text += f", the champion's (the limit for others is {max_ece:.3f})"
    return Check("calibration", ece <= limit, ece, limit, text)


def _latency(latency_ms: float, max_latency_ms: float) -> Check:
    text = f"{latency_ms:.1f} ms an image, wanted at most {max_latency_ms:.1f}"
    return Check("latency", latency_ms <= max_latency_ms, latency_ms, max_latency_ms, text)


def _differences(found: Comparison, *, level: float) -> dict:
    disagreements = found.num_only_a + found.num_only_b
    return {
        "detectable_difference": detectable_difference(
            disagreements, num_images=found.num_images, level=level, wanted_power=POWER
        ),
        "difference": {"high": found.high, "low": found.low, "value": found.difference},
        "num_only_challenger": found.num_only_b,
        "num_only_champion": found.num_only_a,
        "per_class_difference": {
            "high": found.per_class_high,
            "low": found.per_class_low,
            "value": found.per_class_difference,
        },
    }


def _summary(metrics: dict) -> dict:
    return {
        "ece": metrics["ece"],
        "mean_per_class": metrics["mean_per_class"]["value"],
        "top1": metrics["top1"]["value"],
    }


def _assert_same(pairs: pd.DataFrame, champion_metrics: dict | None, challenger_metrics: dict) -> None:
    """Champion and challenger must not change places between their predictions and their metrics."""
    for metrics, column in ((champion_metrics, "correct_a"), (challenger_metrics, "correct_b")):
        assert metrics is not None, "a champion's predictions without its metrics"
        assert metrics["num_images"] == len(pairs), (metrics["num_images"], len(pairs))
        assert math.isclose(metrics["top1"]["value"], pairs[column].mean(), abs_tol=1e-9), column


def _promise(detectable: float | None, champion_accuracy: float) -> str:
    if detectable is None:
        return "so few images show no difference at all, however large: more are needed"
    text = f"the smallest true difference that these images promote 4 times in 5: {_percent(detectable)} points"
    room = 1 - champion_accuracy
    return text + (f"; the champion leaves room for {_percent(room)}: more images are needed" * (detectable > room))


def _p(p: float, level: float, num_candidates: int) -> str:
    chosen = f" ({level * num_candidates:.2g} shared by {num_candidates} candidates)" if num_candidates > 1 else ""
    return f"p = {p:.2g}, wanted at most {level:.2g}{chosen}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}" if round(share, 3) else "0.0"


def _range(low: float, high: float) -> str:
    return f"[{_points(low)}, {_points(high)}]"
