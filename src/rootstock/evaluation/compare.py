"""Compare two predictions tables of the same images: is the difference more than noise, and how small could it be seen?

Everything is paired: the same image judged by both models. No model and no GPU is needed.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import binom

from rootstock import rng

NUM_DRAWS = 10_000
LEVEL = 0.05
NUM_CLASSES_SHOWN = 3  # at each end


class Comparison(NamedTuple):
    """B against A on the same images of one split and view."""

    num_images: int
    num_classes: int
    accuracy_a: float
    accuracy_b: float
    num_only_a: int  # images that A alone gets right
    num_only_b: int
    difference: float  # accuracy of B − accuracy of A
    low: float  # of the 95 % interval of the difference, paired bootstrap over images
    high: float
    p_value: float  # McNemar's exact test, two-sided
    per_class_difference: float  # the same for mean per-class accuracy, bootstrap within classes
    per_class_low: float
    per_class_high: float
    smallest_difference: float  # of accuracy, that this set shows in 80 of 100 cases at the 5 % level


def align(a: pd.DataFrame, b: pd.DataFrame, *, split: str, view: str) -> pd.DataFrame:
    """Join two predictions tables by key.

    Returns:
        label, correct_a, correct_b for each image, by key.

    Raises:
        ValueError: the tables judge different images, or give an image different labels.
    """
    parts = []
    for name, frame in (("A", a), ("B", b)):
        rows = frame[(frame["split"] == split) & (frame["view"] == view)].set_index("key")
        if rows.empty:
            found = sorted(set(zip(frame["split"], frame["view"], strict=True)))
            raise ValueError(f"{name}: found splits and views {found}, wanted {(split, view)}")
        parts.append(rows)
    missing = parts[0].index.symmetric_difference(parts[1].index)
    if len(missing):
        raise ValueError(f"{len(missing)} images are in one table only, first {missing[0]!r}; wanted the same images")
    left, right = parts[0].sort_index(), parts[1].sort_index()
    different = left.index[left["label"] != right["label"]]
    if len(different):
        raise ValueError(f"{len(different)} images have two labels, first {different[0]!r}; wanted the same labels")
    return pd.DataFrame(
        {
            "label": left["label"],
            "correct_a": left["predicted"] == left["label"],
            "correct_b": right["predicted"] == right["label"],
        }
    )


def compare(pairs: pd.DataFrame, *, seed: int) -> Comparison:
    """Compare B with A.

    Args:
        pairs: what `align` gives.
        seed: of the bootstrap's draws.
    """
    a, b = pairs["correct_a"].to_numpy(), pairs["correct_b"].to_numpy()
    steps = b.astype(np.int64) - a.astype(np.int64)
    num_only_a, num_only_b = int((steps < 0).sum()), int((steps > 0).sum())
    low, high = _bootstrap(steps, rng.stream("compare", seed))
    labels = pairs["label"].to_numpy()
    per_class, per_class_low, per_class_high = _per_class(steps, labels, rng.stream("compare-classes", seed))
    return Comparison(
        num_images=len(pairs),
        num_classes=int(pairs["label"].nunique()),
        accuracy_a=float(a.mean()),
        accuracy_b=float(b.mean()),
        num_only_a=num_only_a,
        num_only_b=num_only_b,
        difference=float(steps.mean()),
        low=low,
        high=high,
        p_value=mcnemar(num_only_a, num_only_b),
        per_class_difference=per_class,
        per_class_low=per_class_low,
        per_class_high=per_class_high,
        smallest_difference=smallest_difference(num_only_a + num_only_b, num_images=len(pairs)),
    )


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: are the disagreements a fair coin?

    Source: McNemar 1947; exact binomial form.
    """
    disagreements = num_only_a + num_only_b
    if disagreements == 0:
        return 1.0
    return min(1.0, 2 * float(binom.cdf(min(num_only_a, num_only_b), disagreements, 0.5)))


def smallest_difference(num_disagreements: int, *, num_images: int, level: float = 0.05, power: float = 0.8) -> float:
    """Return the difference of accuracy that a paired test on this set shows with the given power.

    Args:
        num_disagreements: images on which exactly one of the two is right, as observed.

    Returns:
        A fraction in [0, 1]; at least one image's worth.

    Source: Connor 1987, sample size of McNemar's test, solved for the difference (normal approximation).
    """
    discordant = max(num_disagreements, 1) / num_images
    z_level, z_power = ndtri(1 - level / 2), ndtri(power)
    # n d² = (z_level √p + z_power √(p − d²))², solved by iteration from d = 0
    difference = 0.0
    for _ in range(100):
        spread = z_level * math.sqrt(discordant) + z_power * math.sqrt(max(discordant - difference**2, 0.0))
        difference = spread / math.sqrt(num_images)
    return float(min(max(difference, 1 / num_images), 1.0))


def per_class(pairs: pd.DataFrame, class_names: list[str]) -> pd.DataFrame:
    """Return class, num_images, accuracies and difference by class, the largest loss first."""
    grouped = pairs.groupby("label")
    table = pd.DataFrame(
        {
            "class": [class_names[label] for label in grouped.groups],
            "num_images": grouped.size(),
            "accuracy_a": grouped["correct_a"].mean(),
            "accuracy_b": grouped["correct_b"].mean(),
        }
    )
    table["difference"] = table["accuracy_b"] - table["accuracy_a"]
    return table.sort_values(["difference", "class"]).reset_index(drop=True)


def describe(pairs: pd.DataFrame, *, class_names: list[str], a: str, b: str, split: str, view: str) -> str:
    """Write a comparison for a person: the difference with its interval, the test, the classes that changed most.

    Args:
        pairs: what `align` gives.
        a, b, split, view: what was compared.
    """
    found = compare(pairs, seed=0)
    verdict = "more than noise" if found.p_value < LEVEL else "not told from noise"
    lines = [
        f"{b} against {a} on {split}, view {view}: {found.num_images} images of {found.num_classes} classes",
        f"  top-1 accuracy      {_percent(found.accuracy_a)} % → {_percent(found.accuracy_b)} %",
        f"  difference          {_percent(found.difference)} points {_range(found.low, found.high)}",
        f"  mean per class      {_percent(found.per_class_difference)} points "
        f"{_range(found.per_class_low, found.per_class_high)}",
        f"  right alone         {a}: {found.num_only_a} images, {b}: {found.num_only_b}",
        f"  McNemar's test      p = {found.p_value:.2g}: {verdict} at the {100 * LEVEL:.0f} % level",
        f"  smallest difference that these images show 4 times in 5: {_percent(found.smallest_difference)} points",
        "in brackets 95 % intervals, paired bootstrap",
    ]
    table = per_class(pairs, class_names)
    changed = pd.concat([table.head(NUM_CLASSES_SHOWN), table.tail(NUM_CLASSES_SHOWN)]).drop_duplicates("class")
    changed = changed[changed["difference"] != 0]
    if len(changed):
        width = max(map(len, changed["class"]))
        lines.append("classes that changed most:")
        lines += [
            f"  {row['class']:{width}}  {_percent(row['accuracy_a']):>5} % → {_percent(row['accuracy_b']):>5} %"
            f"  ({_percent(row['difference'])}, n = {row['num_images']})"
            for _, row in changed.iterrows()
        ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(low: float, high: float) -> str:
    return f"[{_percent(low)}, {_percent(high)}]"


def _bootstrap(steps: np.ndarray, draws: np.random.Generator) -> tuple[float, float]:
    """The mean of resampled steps in {−1, 0, 1} is a multinomial draw of their counts."""
    counts = np.array([(steps < 0).sum(), (steps == 0).sum(), (steps > 0).sum()])
    resampled = draws.multinomial(len(steps), counts / len(steps), size=NUM_DRAWS)
    low, high = np.quantile((resampled[:, 2] - resampled[:, 0]) / len(steps), [0.025, 0.975])
    return float(low), float(high)


def _per_class(steps: np.ndarray, labels: np.ndarray, draws: np.random.Generator) -> tuple[float, float, float]:
    """Bootstrap within classes. Resampling m images shows (m − 1)/m of their variance, which at ten images a class
    narrows the interval to 91 % coverage; deviations are widened by √(m / (m − 1)).
    """
    classes = np.unique(labels)
    total, resampled = 0.0, np.zeros(NUM_DRAWS)
    for label in classes:
        mine = steps[labels == label]
        total += mine.mean()
        counts = np.array([(mine < 0).sum(), (mine == 0).sum(), (mine > 0).sum()])
        drawn = draws.multinomial(len(mine), counts / len(mine), size=NUM_DRAWS)
        widening = math.sqrt(len(mine) / max(len(mine) - 1, 1))
        resampled += mine.mean() + widening * ((drawn[:, 2] - drawn[:, 0]) / len(mine) - mine.mean())
    low, high = np.quantile(resampled / len(classes), [0.025, 0.975])
    return float(total / len(classes)), float(low), float(high)
