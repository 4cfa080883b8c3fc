"""Learning rates by hand, decay by parameter, and the plateau's count."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.config.optim import CosineSchedule, Optim, PlateauSchedule, StepSchedule
from rootstock.config.section import ParamsError, parse
from rootstock.training.optim import Plateau, learning_rate, make, param_groups

STEP = StepSchedule(kind="step", warmup_epochs=2.0, milestones=[30, 60], factor=0.1)
COSINE = CosineSchedule(kind="cosine", warmup_epochs=5.0, final_fraction=0.01)
PLATEAU = PlateauSchedule(kind="plateau", warmup_epochs=0.0, patience=2, factor=0.1)


def optim(schedule, **changes) -> Optim:
    given = {"lr": 0.4, "momentum": 0.9, "weight_decay": 1e-4, "decay_norm_and_bias": False, "schedule": schedule}
    return Optim(**given | changes)


def rate(schedule, progress, *, num_epochs=90, num_reductions=0) -> float:
    return learning_rate(progress, optim=optim(schedule), num_epochs=num_epochs, num_reductions=num_reductions)


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [(0.01, 0.002), (0.5, 0.1), (1.0, 0.2), (2.0, 0.4), (29.99, 0.4), (30.0, 0.4), (30.01, 0.04), (60.01, 0.004),
     (90.0, 0.004)],
)  # fmt: skip
def test_steps_by_hand(progress, wanted):
    assert rate(STEP, progress) == pytest.approx(wanted)


def test_a_milestone_changes_the_first_step_of_the_next_epoch():
    steps_per_epoch = 7
    rates = [rate(STEP, (step + 1) / steps_per_epoch) for step in range(90 * steps_per_epoch)]
    changes = [step for step in range(2 * steps_per_epoch, len(rates)) if rates[step] != rates[step - 1]]
    assert changes == [30 * steps_per_epoch, 60 * steps_per_epoch]


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [(0.1, 0.008), (2.5, 0.2), (5.0, 0.4), (47.5, 0.4 * (0.01 + 0.99 / 2)), (90.0, 0.004)],
)
def test_cosine_by_hand(progress, wanted):
    assert rate(COSINE, progress) == pytest.approx(wanted)


def test_cosine_without_warm_up_or_rest_ends_at_zero():
    schedule = CosineSchedule(kind="cosine", warmup_epochs=0.0, final_fraction=0.0)
    assert rate(schedule, 10.0, num_epochs=10) == 0.0
    assert rate(schedule, 2.5, num_epochs=10) == pytest.approx(0.4 * (1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize(("num_reductions", "wanted"), [(0, 0.4), (1, 0.04), (3, 0.0004)])
def test_plateau_by_hand(num_reductions, wanted):
    assert rate(PLATEAU, 12.3, num_reductions=num_reductions) == pytest.approx(wanted)


@settings(max_examples=30, deadline=None)
@given(
    schedule=st.sampled_from([STEP, COSINE, PLATEAU]),
    first=st.floats(1e-6, 90),
    second=st.floats(1e-6, 90),
)
def test_rates_rise_in_warm_up_and_never_after_it(schedule, first, second):
    early, late = sorted((first, second))
    if late <= schedule.warmup_epochs:
        assert rate(schedule, early) <= rate(schedule, late)
    elif early >= schedule.warmup_epochs:
        assert rate(schedule, early) >= rate(schedule, late)
    assert 0 < rate(schedule, early) <= 0.4


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))


def shapes(groups) -> dict[float, list[tuple[int, ...]]]:
    return {group["weight_decay"]: [tuple(p.shape) for p in group["params"]] for group in groups}


def test_vectors_do_not_decay_unless_asked():
    groups = shapes(param_groups(network(), weight_decay=0.1, decay_norm_and_bias=False))
    assert groups == {0.1: [(4, 3, 1, 1), (2, 4)], 0.0: [(4,), (4,), (4,), (2,)]}
    groups = shapes(param_groups(network(), weight_decay=0.1, decay_norm_and_bias=True))
    assert groups == {0.1: [(4, 3, 1, 1), (4,), (4,), (4,), (2, 4), (2,)]}
    groups = shapes(param_groups(network(), weight_decay=0.0, decay_norm_and_bias=False))
    assert groups == {0.0: [(4, 3, 1, 1), (4,), (4,), (4,), (2, 4), (2,)]}


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    assert shapes(param_groups(model, weight_decay=0.1, decay_norm_and_bias=True)) == {0.1: [(2, 4), (2,)]}


def test_two_steps_are_pytorchs_form_of_momentum():
    weight = torch.nn.Parameter(torch.ones(1, 1))
    model = torch.nn.Module()
    model.weight = weight
    optimizer = make(model, optim=optim(PLATEAU, lr=0.5, momentum=0.9, weight_decay=0.1))
    velocity, wanted = 0.0, 1.0
    for lr in (0.5, 0.05):
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        velocity = 0.9 * velocity + 2.0 + 0.1 * wanted
        wanted -= lr * velocity
    assert weight.item() == pytest.approx(wanted)


def test_plateau_counts_epochs_without_a_better_value():
    plateau = Plateau(PLATEAU)
    values = [0.1, 0.2, 0.2, 0.15, 0.3, 0.1, 0.1, 0.3, 0.1, 0.1]
    reduced = [plateau.observe(value) for value in values]
    assert [epoch for epoch, now in enumerate(reduced) if now] == [3, 6, 8]
    assert plateau.num_reductions == 3


@pytest.mark.parametrize("schedule", [STEP, COSINE])
def test_other_schedules_never_reduce(schedule):
    plateau = Plateau(schedule)
    assert not any(plateau.observe(0.1) for _ in range(50))
    assert plateau.num_reductions == 0


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), max_size=12), cut=st.integers(0, 12))
def test_plateau_continues_from_its_state(values, cut):
    whole, first = Plateau(PLATEAU), Plateau(PLATEAU)
    for value in values:
        whole.observe(value)
    for value in values[:cut]:
        first.observe(value)
    second = Plateau(PLATEAU)
    second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
    for value in values[cut:]:
        second.observe(value)
    assert second.state() == whole.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "f.lr: 0.0 is not allowed: input should be greater than 0"),
        ({"momentum": 1.0}, "f.momentum: 1.0 is not allowed: input should be less than 1"),
        ({"weight_decay": "1e-4"}, "f.weight_decay: '1e-4' is not allowed: input should be a valid number"),
        (
            {"schedule": {"kind": "step", "warmup_epochs": 0, "milestones": [3, 3], "factor": 0.1}},
            "f.schedule.milestones: [3, 3] is not allowed: value error, wanted epochs that grow",
        ),
        (
            {"schedule": {"kind": "cosine", "warmup_epochs": 0, "final_fraktion": 0.1, "final_fraction": 0}},
            "f.schedule.final_fraktion: unknown key (value 0.1); did you mean final_fraction?",
        ),
    ],
)
def test_a_wrong_value_is_named(change, message):
    with pytest.raises(ParamsError) as caught:
        parse(Optim, optim(STEP).model_dump() | change, where="f")
    assert str(caught.value) == message


def test_a_schedule_longer_than_training_is_refused():
    optim(STEP).check_length(61)
    with pytest.raises(ValueError, match=r"^optim.schedule.milestones: found \[60\]; wanted less than 60 epochs$"):
        optim(STEP).check_length(60)
    with pytest.raises(ValueError, match=r"^optim.schedule.warmup_epochs: found 5.0; wanted less than 5 epochs$"):
        optim(COSINE).check_length(5)
