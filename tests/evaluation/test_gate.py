"""The gate: each refusal in its words, laws, and 1 000 challengers of equal quality through all of it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.config.load import load_section
from rootstock.config.promote import Promote
from rootstock.config.section import ParamsError, parse
from rootstock.evaluation import compare, gate
from rootstock.evaluation.metrics import stratified, wilson

LIMITS = {"model": "m", "level": 0.05, "margin": 0.02, "class_floor": 0.2, "max_ece": 0.15, "max_latency_ms": 100.0}
NAMES = [f"class {label}" for label in range(200)]
CHECKS = ["better", "per_class", "class_floor", "calibration", "latency"]
GOOD = [(5, 1, 4, 0)] * 4  # a class: images right in both, in the champion only, in the challenger only, in neither


def pairs_of(classes: list[tuple[int, int, int, int]]) -> pd.DataFrame:
    rows = [
        (label, right_a, right_b)
        for label, numbers in enumerate(classes)
        for number, (right_a, right_b) in zip(numbers, [(1, 1), (1, 0), (0, 1), (0, 0)], strict=True)
        for _ in range(number)
    ]
    frame = pd.DataFrame(rows, columns=["label", "correct_a", "correct_b"])
    return frame.astype({"correct_a": bool, "correct_b": bool})


def metrics_of(pairs: pd.DataFrame, column: str, *, ece: float = 0.1) -> dict:
    labels, correct = pairs["label"].to_numpy(), pairs[column].to_numpy()
    num_images = np.bincount(labels)
    return {
        "num_images": len(pairs),
        "num_classes": int((num_images > 0).sum()),
        "top1": wilson(int(correct.sum()), len(pairs))._asdict(),
        "mean_per_class": stratified(
            np.bincount(labels, correct)[num_images > 0], num_images[num_images > 0]
        )._asdict(),
        "ece": ece,
    }


def judged(
    pairs: pd.DataFrame,
    *,
    champion: bool = True,
    ece: float = 0.1,
    champion_ece: float = 0.1,
    latency_ms: float = 5.0,
    num_candidates: int = 1,
    **limits: float,
) -> gate.Verdict:
    return gate.judge(
        pairs if champion else None,
        metrics_of(pairs, "correct_b", ece=ece),
        champion_metrics=metrics_of(pairs, "correct_a", ece=champion_ece) if champion else None,
        class_names=NAMES,
        latency_ms=latency_ms,
        num_candidates=num_candidates,
        num_judged_before=2,
        limits=Promote(**LIMITS | limits),
    )


def failed(verdict: gate.Verdict) -> list[str]:
    assert [check.name for check in verdict.checks] == CHECKS
    assert verdict.promoted == all(check.passed for check in verdict.checks)
    return [check.name for check in verdict.checks if not check.passed]


def swapped(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.rename(columns={"correct_a": "correct_b", "correct_b": "correct_a"})


def text(verdict: gate.Verdict, name: str) -> str:
    return next(check.text for check in verdict.checks if check.name == name)


REFUSALS = {
    "worse": (
        {"pairs": pairs_of([(5, 4, 1, 0)] * 4)}, "better",
        "worse: -30.0 points [-50.0, -10.0] in top-1 accuracy, 90.0 % → 60.0 %; right alone on 4 images, "
        "the champion on 16: p = 1, wanted at most 0.05",
    ),
    "equal": (
        {"pairs": pairs_of([(5, 2, 2, 1)] * 4)}, "better",
        "equal: 0.0 points [-20.0, +20.0] in top-1 accuracy, 70.0 % → 70.0 %; right alone on 8 images, "
        "the champion on 8: p = 0.6, wanted at most 0.05",
    ),
    "not shown to be better": (
        {"pairs": pairs_of([(5, 1, 2, 2)] * 4), "num_candidates": 9}, "better",
        "not shown to be better: +10.0 points [-7.5, +27.5] in top-1 accuracy, 60.0 % → 70.0 %; right "
        "alone on 8 images, the champion on 4: p = 0.19, wanted at most 0.0056 (0.05 shared by 9 "
        "candidates)",
    ),
    "chosen from many": (
        {"pairs": pairs_of(GOOD), "num_candidates": 9}, "better",
        "not shown to be better: +30.0 points [+10.0, +50.0] in top-1 accuracy, 60.0 % → 90.0 %; right "
        "alone on 16 images, the champion on 4: p = 0.0059, wanted at most 0.0056 (0.05 shared by 9 "
        "candidates)",
    ),
    "one class for all": (
        {"pairs": pairs_of([(9, 0, 1, 0), (0, 9, 0, 1), (0, 9, 0, 1), (0, 9, 0, 1)])}, "better",
        "worse: -65.0 points [-80.0, -47.5] in top-1 accuracy, 90.0 % → 25.0 %; right alone on 1 images, "
        "the champion on 27: p = 1, wanted at most 0.05",
    ),
    "guessing": (
        {"pairs": pairs_of([(4, 14, 1, 1)] * 4)}, "better",
        "worse: -65.0 points [-76.2, -51.2] in top-1 accuracy, 90.0 % → 25.0 %; right alone on 4 images, "
        "the champion on 56: p = 1, wanted at most 0.05",
    ),
    "a small class pays for a large one": (
        {"pairs": pairs_of([(60, 0, 30, 10), (2, 3, 0, 0)])}, "per_class",
        "mean per-class accuracy -15.0 points [-38.4, +9.4], wanted the lower end at or above -2.0",
    ),
    "a class is gone": (
        {"pairs": pairs_of([*[(20, 0, 20, 0)] * 9, (1, 9, 0, 0)])}, "class_floor",
        "1 class shown to have fallen below 20.0 %, worst 'class 9': 100.0 % → 10.0 % of 10 images",
    ),
    "overconfident": (
        {"pairs": pairs_of(GOOD), "ece": 0.31}, "calibration",
        "expected calibration error 0.310, wanted at most 0.150",
    ),
    "more so than the champion": (
        {"pairs": pairs_of(GOOD), "ece": 0.31, "champion_ece": 0.3}, "calibration",
        "expected calibration error 0.310, wanted at most 0.300, the champion's (the limit for others is "
        "0.150)",
    ),
    "slow": (
        {"pairs": pairs_of(GOOD), "latency_ms": 140.04}, "latency",
        "140.0 ms an image, wanted at most 100.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "check", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_in_their_words(case: dict, check: str, said: str) -> None:
    verdict = judged(**case)
    assert check in failed(verdict)
    assert check == "better" or failed(verdict) == [check]
    assert text(verdict, check) == said


def test_a_promotion_in_its_words() -> None:
    verdict = judged(pairs_of(GOOD), champion_ece=0.2)
    assert failed(verdict) == []
    assert gate.describe(verdict, challenger="full-0", champion="version 3").splitlines() == [
        "full-0 against version 3: promoted on 40 images of 4 classes",
        "  better      passed  better: +30.0 points [+10.0, +50.0] in top-1 accuracy, 60.0 % → 90.0 %; right alone on "
        "16 images, the champion on 4: p = 0.0059, wanted at most 0.05",
        "  per_class   passed  mean per-class accuracy +30.0 points [+8.9, +51.1], wanted the lower end at or above "
        "-2.0",
        "  class_floor passed  no class shown to have fallen below 20.0 %, weakest 'class 0': 60.0 % → 90.0 % "
        "of 10 images",
        "  calibration passed  expected calibration error 0.100, wanted at most 0.200, the champion's (the limit for "
        "others is 0.150)",
        "  latency     passed  5.0 ms an image, wanted at most 100.0",
        "the smallest true difference that these images promote 4 times in 5: 30.3 points",
        "other challengers judged before on exactly these images: 2",
    ]


def test_a_refusal_says_when_no_challenger_could_have_passed() -> None:
    few, good, weak = (
        gate.describe(judged(pairs_of(classes)), challenger="b", champion="a")
        for classes in ([(2, 0, 1, 0)], [(14, 0, 1, 0)] * 4, [(60, 5, 5, 30)] * 4)
    )
    assert "so few images show no difference at all" in few
    assert "the champion leaves room for 6.7: more images are needed" in good
    assert "more images are needed" not in weak


@pytest.mark.parametrize("champion", [True, False])
def test_evidence_has_the_same_keys_and_is_json(champion: bool) -> None:
    verdict = judged(pairs_of(GOOD), champion=champion)
    assert json.loads(json.dumps(verdict.evidence, allow_nan=False)) == verdict.evidence
    assert list(verdict.evidence) == sorted(judged(pairs_of(GOOD)).evidence)
    assert verdict.evidence["num_judged_before"] == 2


@pytest.mark.parametrize(
    ("classes", "passes"),
    [
        ([(0, 0, 8, 2)] * 4, True),
        ([(0, 0, 10, 0), *[(0, 0, 0, 10)] * 16], False),  # one class for all
        ([(0, 0, 100, 0), *[(0, 0, 0, 10)] * 16], False),  # the same, 38 % right
        ([(0, 0, 1, 9)] * 10, False),  # guessing
        ([(0, 0, 0, 10)] * 10, False),
    ],
)
def test_the_first_champion_must_beat_chance_in_every_sense(classes: list, passes: bool) -> None:
    assert failed(judged(pairs_of(classes), champion=False)) == ([] if passes else ["better"])


def test_the_first_champion_is_chosen_from_many_too() -> None:
    pairs = pairs_of([(0, 0, 7, 9)] * 4)
    one, many = judged(pairs, champion=False), judged(pairs, champion=False, num_candidates=100)
    assert 0.05 / 100 < one.evidence["p_value"] < 0.05
    assert failed(one) == []
    assert failed(many) == ["better"]


@pytest.mark.parametrize(("lost", "fails"), [((0, 5, 0, 5), True), ((0, 4, 0, 6), False), ((2, 8, 0, 0), False)])
def test_a_class_falls_when_its_images_show_it_and_it_is_below_the_floor(lost: tuple, fails: bool) -> None:
    verdict = judged(pairs_of([*[(20, 0, 20, 0)] * 9, lost]), margin=1.0)
    assert failed(verdict) == (["class_floor"] if fails else [])


def test_classes_that_are_too_small_to_fall_are_counted() -> None:
    verdict = judged(pairs_of([*[(20, 0, 20, 0)] * 9, (0, 4, 0, 0), (0, 3, 0, 0)]), margin=1.0)
    assert failed(verdict) == []
    assert text(verdict, "class_floor").endswith("2 classes have too few images to show a loss")


def test_metrics_of_other_predictions_are_our_own_mistake() -> None:
    pairs = pairs_of(GOOD)
    with pytest.raises(AssertionError):
        gate.judge(
            pairs, metrics_of(pairs, "correct_a"), champion_metrics=metrics_of(pairs, "correct_b"), class_names=NAMES,
            latency_ms=1.0, num_candidates=1, num_judged_before=0, limits=Promote(**LIMITS),
        )  # fmt: skip


@pytest.fixture(scope="module")
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "NUM_DRAWS", 200)
        yield


classes = st.lists(st.tuples(*[st.integers(0, 6)] * 4).filter(any), min_size=2, max_size=4)


@pytest.mark.usefixtures("few_draws")
@given(classes=classes, num_candidates=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_swapping_never_promotes_both(classes: list, num_candidates: int) -> None:
    pairs = pairs_of(classes)
    both = [judged(one, num_candidates=num_candidates, margin=1.0) for one in (pairs, swapped(pairs))]
    assert not all(verdict.promoted for verdict in both)


@pytest.mark.usefixtures("few_draws")
@given(classes=classes, num_both=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_images_that_both_get_right_turn_no_refusal(classes: list, num_both: int) -> None:
    (both, *rest), *others = classes
    before, after = judged(pairs_of(classes)), judged(pairs_of([(both + num_both, *rest), *others]))
    assert before.checks[0].passed == after.checks[0].passed
    assert before.evidence["p_value"] == after.evidence["p_value"]


@pytest.fixture(scope="module")
def challengers(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("challengers", repository / "benchmarks/challengers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulate(challengers: ModuleType, models, *, num_images: int, num_trials: int, seed: int) -> dict[str, float]:
    """Send challengers through the whole gate; return the shares promoted, and whose intervals hold the truth."""
    draws = np.random.default_rng(seed)
    num_candidates, num_classes = models.candidates.shape
    counts = dict.fromkeys(("promoted", "top1", "per_class"), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "NUM_DRAWS", 300)
        patch.setattr(gate, "detectable_difference", lambda *_, **__: None)  # evidence alone, and slow
        for trial in range(num_trials):
            patch.setattr(gate, "SEED", trial)  # so few draws of one stream err alike in every trial
            one = challengers.draw(models, per_class=num_images // num_classes, draws=draws)
            verdict = gate.judge(
                one.pairs, one.challenger, champion_metrics=one.champion, class_names=NAMES, latency_ms=5.0,
                num_candidates=num_candidates, num_judged_before=0, limits=Promote(**LIMITS),
            )  # fmt: skip
            truth = models.candidates[one.chosen].mean() - models.champion.mean()
            counts["promoted"] += verdict.promoted
            for name, key in (("top1", "difference"), ("per_class", "per_class_difference")):
                counts[name] += verdict.evidence[key]["low"] <= truth <= verdict.evidence[key]["high"]
    return {name: count / num_trials for name, count in counts.items()}


@pytest.mark.parametrize(
    ("num_images", "num_classes", "num_candidates", "num_trials"),
    [(170, 17, 1, 1000), (170, 17, 9, 1000), (510, 102, 1, 400)],  # the benchmark takes 1 000 of each, and more sizes
)
def test_of_equal_challengers_no_more_than_the_level_are_promoted(
    challengers: ModuleType, num_images: int, num_classes: int, num_candidates: int, num_trials: int
) -> None:
    accuracy_K = challengers.accuracies(num_classes)
    models = challengers.Models(accuracy_K, np.tile(accuracy_K, (num_candidates, 1)))
    found = simulate(challengers, models, num_images=num_images, num_trials=num_trials, seed=3)
    assert 0 < found["promoted"] <= LIMITS["level"]
    if num_candidates == 1:  # the interval of a model chosen on the same images promises nothing
        assert 0.93 <= found["top1"] <= 0.97
        assert 0.93 <= found["per_class"] <= 0.97


@pytest.mark.parametrize(("num_images", "num_classes", "num_candidates"), [(170, 17, 9), (510, 102, 1)])
def test_challengers_better_by_the_detectable_difference_are_promoted_four_times_in_five(
    challengers: ModuleType, num_images: int, num_classes: int, num_candidates: int
) -> None:
    accuracy_K = challengers.accuracies(num_classes)
    gain = challengers.detectable_gain(
        accuracy_K, num_images=num_images, level=LIMITS["level"] / num_candidates, power=gate.POWER
    )
    candidates = np.tile(accuracy_K, (num_candidates, 1))
    candidates[0] = challengers.better(accuracy_K, gain)
    models = challengers.Models(accuracy_K, candidates)
    found = simulate(challengers, models, num_images=num_images, num_trials=300, seed=4)
    assert 0.8 <= found["promoted"] <= 0.92


def test_without_the_candidates_the_level_is_not_kept(challengers: ModuleType) -> None:
    """The winner's curse is real: the best of nine equals, judged as if it were the only one."""
    accuracy_K = challengers.accuracies(17)
    models = challengers.Models(accuracy_K, np.tile(accuracy_K, (9, 1)))
    draws, shown = np.random.default_rng(5), 0
    for _ in range(400):
        pairs = challengers.draw(models, per_class=10, draws=draws).pairs
        a, b = pairs["correct_a"], pairs["correct_b"]
        shown += gate.p_value(int((a & ~b).sum()), int((b & ~a).sum())) <= LIMITS["level"]
    assert shown / 400 > 2 * LIMITS["level"]


def test_the_simulation_disagrees_as_it_says(challengers: ModuleType) -> None:
    accuracy_K = challengers.accuracies(17)
    models = challengers.Models(accuracy_K, challengers.better(accuracy_K, 0.08)[None])
    pairs = challengers.draw(models, per_class=20_000, draws=np.random.default_rng(6)).pairs
    assert pairs["correct_b"].mean() - pairs["correct_a"].mean() == pytest.approx(0.08, abs=0.004)
    wanted = challengers.disagreement(accuracy_K, models.candidates[0])
    assert (pairs["correct_a"] != pairs["correct_b"]).mean() == pytest.approx(wanted, abs=0.004)


def test_the_measured_gate_keeps_its_promises(repository: Path) -> None:
    figures = json.loads((repository / "benchmarks/results/gate.json").read_text())["figures"]
    assert figures["limits"] == load_section(repository / "params.yaml", Promote, "promote").model_dump()
    assert len(figures["rows"]) == 18
    for row in figures["rows"]:
        assert row["num_challengers"] == 1000
        if row["kind"] == "better":
            assert row["promoted"]["value"] >= 0.8
        else:
            assert row["promoted"]["value"] <= figures["level"]


def test_the_demo_has_a_first_champion_under_its_limits(repository: Path) -> None:
    selection = json.loads((repository / "reports/select/challenger.json").read_text())
    chosen = "{strategy}-{seed}".format(**selection["selected"])
    metrics = json.loads((repository / f"reports/evaluate/{chosen}/metrics.json").read_text())
    verdict = gate.judge(
        None, metrics[selection["split"]][selection["view"]], champion_metrics=None, class_names=NAMES, latency_ms=5.0,
        num_candidates=len(selection["candidates"]), num_judged_before=0,
        limits=load_section(repository / "params.yaml", Promote, "promote"),
    )  # fmt: skip
    assert verdict.promoted, gate.describe(verdict, challenger=chosen, champion=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "My model"}, r"promote\.model: 'My model' is not allowed"),
        ({"level": 0.0}, r"promote\.level: 0\.0 is not allowed"),
        ({"level": 0.5}, r"promote\.level: 0\.5 is not allowed"),
        ({"margin": -0.01}, r"promote\.margin: -0\.01 is not allowed"),
        ({"max_ece": 1.5}, r"promote\.max_ece: 1\.5 is not allowed"),
        ({"max_latency_ms": 0.0}, r"promote\.max_latency_ms: 0\.0 is not allowed"),
        ({"floor": 0.1}, "unknown key .* did you mean class_floor"),
    ],
)
def test_limits_that_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(Promote, LIMITS | change, where="promote")
