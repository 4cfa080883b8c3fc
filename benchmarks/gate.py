"""The promotion gate on simulated challengers: how often it promotes one that is no better, and one that is.

    python benchmarks/gate.py

Each row is 1 000 challengers, each against a champion of its own on images of its own, through all checks of the gate
with the limits of params.yaml. `equal`: all candidates are as good as the champion in every class. `elsewhere`: they
are as good on the whole, in other classes. `better`: one candidate is better by the detectable difference, the others
equal; selection chooses the best on the same images. `num_candidates` is what the level is divided by.
`some_class_below_floor`: the share with a class below the floor and below the champion's, shown or not.
Writes benchmarks/results/gate.json; takes some two minutes on two cores.
"""

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import challengers  # beside this script
import numpy as np
import record

from rootstock import rng
from rootstock.config.load import load_section
from rootstock.config.promote import Promote
from rootstock.data.parallel import num_workers
from rootstock.evaluation import compare, gate
from rootstock.evaluation.metrics import wilson
from rootstock.evaluation.paired_test import detectable_difference

NUM_CHALLENGERS = 1_000
SIZES = ((170, 17), (510, 102), (1_020, 102))  # images, classes: the demo's val, half of Flowers-102's val, all of it
NUM_CANDIDATES = (1, 9)
NUM_DRAWS = 1_000  # of each bootstrap, a tenth of the gate's own: what that adds to an interval is another for each
PROMISED_POWER = 0.8
COVERAGE = (0.93, 0.97)


def main() -> None:
    """Simulate, print the table, write the results; exit 1 where a bar is missed."""
    limits = load_section(record.ROOT / "params.yaml", Promote, "promote")
    settings = [
        {"kind": kind, "num_candidates": number, "num_classes": num_classes, "num_images": num_images}
        for num_images, num_classes in SIZES
        for number in NUM_CANDIDATES
        for kind in ("equal", "elsewhere", "better")
    ]
    with ProcessPoolExecutor(num_workers()) as pool:
        rows = list(pool.map(functools.partial(simulate, limits=limits), settings))
    for row in rows:
        print("{kind:10}{num_images:6}{num_candidates:3}  promoted {promoted[value]:.3f}".format(**row))
    figures = {"level": limits.level, "limits": limits.model_dump(), "promised_power": PROMISED_POWER, "rows": rows}
    figures["num_bootstrap_draws"] = NUM_DRAWS
    print(f"wrote {record.write('gate', figures)}")
    sys.exit(1 if [*missed(rows, level=limits.level)] else 0)


def models_of(setting: dict, *, gain: float) -> challengers.Models:
    """Return the champion and its candidates; the first one is the better one, where one is."""
    accuracy_K = challengers.accuracies(setting["num_classes"])
    equal = np.roll(accuracy_K, len(accuracy_K) // 4) if setting["kind"] == "elsewhere" else accuracy_K
    candidates = np.tile(equal, (setting["num_candidates"], 1))
    if setting["kind"] == "better":
        candidates[0] = challengers.better(accuracy_K, gain)
    return challengers.Models(accuracy_K, candidates)


def simulate(setting: dict, *, limits: Promote) -> dict:
    """Send challengers through the gate and count; returns the setting with what was found."""
    num_candidates, num_classes, num_images = (setting[f"num_{name}"] for name in ("candidates", "classes", "images"))
    gain = challengers.detectable_gain(
        challengers.accuracies(num_classes),
        num_images=num_images,
        level=limits.level / num_candidates,
        power=gate.POWER,
    )
    models = models_of(setting, gain=gain)
    compare.NUM_DRAWS = NUM_DRAWS
    gate.detectable_difference = functools.cache(detectable_difference)  # slow, and the same for most challengers
    draws = rng.stream("gate", *setting.values())
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for number in range(NUM_CHALLENGERS):
        gate.SEED = number  # or the draws of one stream would err alike in every interval
        one = challengers.draw(models, per_class=num_images // num_classes, draws=draws)
        verdict = gate.judge(
            one.pairs,
            one.challenger,
            champion_metrics=one.champion,
            class_names=[f"class {label}" for label in range(num_classes)],
            latency_ms=limits.max_latency_ms / 2,
            num_candidates=num_candidates,
            num_judged_before=0,
            limits=limits,
        )
        counts["promoted"] += verdict.promoted
        refused.update({check.name: int(not check.passed) for check in verdict.checks})
        truth = models.candidates[one.chosen].mean() - models.champion.mean()
        counts["coverage"] += inside(truth, verdict.evidence["difference"])
        counts["coverage_per_class"] += inside(truth, verdict.evidence["per_class_difference"])
        by_class = one.pairs.groupby("label")[["correct_a", "correct_b"]].mean()
        low = (by_class["correct_b"] < limits.class_floor) & (by_class["correct_b"] < by_class["correct_a"])
        counts["some_class_below_floor"] += bool(low.any())
    if num_candidates > 1:  # the interval of a model chosen on the same images promises nothing
        del counts["coverage"], counts["coverage_per_class"]
    difference = gain if setting["kind"] == "better" else 0.0
    found = {name: wilson(count, NUM_CHALLENGERS)._asdict() for name, count in counts.items()}
    return setting | {"num_challengers": NUM_CHALLENGERS, "true_difference": difference, "refused_by": refused} | found


def inside(truth: float, interval: dict[str, float]) -> bool:
    """Whether an interval holds the truth."""
    return interval["low"] <= truth <= interval["high"]


def missed(rows: list[dict], *, level: float) -> Iterator[str]:
    """Print and yield each bar that is missed."""
    for row in rows:
        where = "{kind} at {num_images} images, {num_candidates} candidates".format(**row)
        found = row["promoted"]["value"]
        if found < PROMISED_POWER if row["kind"] == "better" else found > level:
            print(f"{where}: promoted {found:.3f}")
            yield where
        for name in ("coverage", "coverage_per_class"):
            # the top-1 interval allows for other numbers of images a class, which cannot happen here: where the two
            # models differ by class it holds the truth more often than it says
            most = 1.0 if (row["kind"], name) == ("elsewhere", "coverage") else COVERAGE[1]
            if name in row and not COVERAGE[0] <= row[name]["value"] <= most:
                print(f"{where}: {name} {row[name]['value']:.3f}")
                yield where


if __name__ == "__main__":
    main()
