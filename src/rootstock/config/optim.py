"""How to descend: SGD with momentum and a schedule of the learning rate, told apart by `kind`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from rootstock.config.section import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section

Factor = Annotated[float, Field(gt=0.0, lt=1.0)]


class StepSchedule(Section):
    """Multiply the rate by `factor` at each milestone."""

    kind: Literal["step"]
    warmup_epochs: NonNegativeFloat  # linear from zero
    milestones: list[PositiveInt]  # epochs finished, growing
    factor: Factor

    @field_validator("milestones")
    @classmethod
    def _grow(cls, milestones: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise ValueError("wanted epochs that grow")
        return milestones


class PlateauSchedule(Section):
    """Multiply the rate by `factor` after `patience` epochs without a better validation top-1."""

    kind: Literal["plateau"]
    warmup_epochs: NonNegativeFloat
    patience: PositiveInt
    factor: Factor


class CosineSchedule(Section):
    """Half a cosine from the rate, after warm-up, to `final_fraction` of it at the end."""

    kind: Literal["cosine"]
    warmup_epochs: NonNegativeFloat
    final_fraction: Fraction


Schedule = Annotated[StepSchedule | PlateauSchedule | CosineSchedule, Field(discriminator="kind")]


class Optim(Section):
    """SGD with momentum in PyTorch's form: v ← momentum·v + gradient; w ← w − lr·v."""

    lr: PositiveFloat  # at the batch size of the same section; nothing is scaled behind one's back
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)]
    weight_decay: NonNegativeFloat
    decay_norm_and_bias: bool
    schedule: Schedule

    def check_length(self, num_epochs: int) -> None:
        """Check the schedule against the training's length; for the section that holds both.

        Raises:
            ValueError: warm-up does not end, or a milestone lies at or after the end.
        """
        warmup = self.schedule.warmup_epochs
        if warmup >= num_epochs:
            raise ValueError(f"optim.schedule.warmup_epochs: found {warmup}; wanted less than {num_epochs} epochs")
        late = [m for m in getattr(self.schedule, "milestones", []) if m >= num_epochs]
        if late:
            raise ValueError(f"optim.schedule.milestones: found {late}; wanted less than {num_epochs} epochs")
