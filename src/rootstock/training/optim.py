"""SGD with momentum, and the learning rate as a pure function of how far training is."""

import math

import torch
from torch import nn

from rootstock.config.optim import CosineSchedule, Optim, PlateauSchedule, Schedule, StepSchedule


def param_groups(network: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool) -> list[dict]:
    """Split the parameters that are trained (`requires_grad`) into those that decay and those that do not.

    Args:
        decay_norm_and_bias: whether vectors (biases, scales and shifts of batch normalisation) decay too.

    Returns:
        Groups for an optimiser, in the network's order; none is empty.
    """
    groups: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups[weight_decay if decay_norm_and_bias or parameter.ndim > 1 else 0.0].append(parameter)
    return [{"params": members, "weight_decay": decay} for decay, members in groups.items() if members]


def make(network: nn.Module, *, optim: Optim) -> torch.optim.SGD:
    """Return the optimiser of the parameters with `requires_grad`; the loop sets the rate at every step."""
    groups = param_groups(network, weight_decay=optim.weight_decay, decay_norm_and_bias=optim.decay_norm_and_bias)
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)


def learning_rate(progress: float, *, optim: Optim, num_epochs: int, num_reductions: int) -> float:
    """Return the rate of the step that brings training to `progress`.

    Args:
        progress: epochs finished once this step is taken, (step + 1) / (steps of an epoch), in (0, num_epochs]. So
            the first step of a warm-up moves, a milestone m changes the rate from the first step after m epochs on,
            and the cosine's last step has exactly its final rate.
        num_epochs: the training's length; warm-up ends before it (`Optim.check_length`).
        num_reductions: how often the plateau has reduced the rate (`Plateau`); 0 for other schedules.
    """
    schedule = optim.schedule
    if progress < schedule.warmup_epochs:
        return optim.lr * progress / schedule.warmup_epochs
    match schedule:
        case StepSchedule():
            return optim.lr * schedule.factor ** sum(progress > milestone for milestone in schedule.milestones)
        case PlateauSchedule():
            return optim.lr * schedule.factor**num_reductions
        case CosineSchedule():
            done = (progress - schedule.warmup_epochs) / (num_epochs - schedule.warmup_epochs)
            share = (1 + math.cos(math.pi * done)) / 2
            return optim.lr * (schedule.final_fraction + (1 - schedule.final_fraction) * share)


class Plateau:
    """Counts how often a value, larger being better, has not improved for the schedule's `patience` observations.

    Under a schedule of another kind it observes and never reduces.
    """

    def __init__(self, schedule: Schedule):
        self.patience = schedule.patience if isinstance(schedule, PlateauSchedule) else math.inf
        self.best = -math.inf
        self.num_bad_epochs = 0
        self.num_reductions = 0

    def observe(self, value: float) -> bool:
        """Take an epoch's value; equal to the best is no improvement. Return whether the rate is reduced now."""
        assert not math.isnan(value), "a metric that is not a number"
        if value > self.best:
            self.best, self.num_bad_epochs = value, 0
            return False
        self.num_bad_epochs += 1
        if self.num_bad_epochs < self.patience:
            return False
        self.num_bad_epochs = 0
        self.num_reductions += 1
        return True

    def state(self) -> dict:
        """Return what `load` takes, as JSON values."""
        best = None if self.best == -math.inf else self.best
        return {"best": best, "num_bad_epochs": self.num_bad_epochs, "num_reductions": self.num_reductions}

    def load(self, state: dict) -> None:
        """Continue from a `state`."""
        self.best = -math.inf if state["best"] is None else state["best"]
        self.num_bad_epochs, self.num_reductions = state["num_bad_epochs"], state["num_reductions"]
