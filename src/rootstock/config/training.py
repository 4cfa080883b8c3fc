"""How a network is trained: what pretraining and fine-tuning share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rootstock.config.optim import Optim
from rootstock.config.section import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section

Range = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]  # low, high
Preprocess = Literal["standardise", "channel-mean", "mean-image"]


class Augment(Section):
    """Random views of a training image; validation and test see none of this."""

    scale: Range  # of the crop, as a fraction of the image's area
    ratio: Range  # of the crop, width / height
    flip: Fraction  # probability of a horizontal flip
    antialias: bool  # smooth a crop before it is made smaller, as evaluation does
    colour_pca_std: (
        NonNegativeFloat  # AlexNet's colour shift, in units of the dataset's own eigenvalues; 0.1 in the paper
    )

    @model_validator(mode="after")
    def _ranges(self) -> "Augment":
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale}; wanted [low, high] with low <= high <= 1")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio}; wanted [low, high] with low <= high")
        return self


class Training(Section):
    """One training."""

    epochs: PositiveInt
    batch_size: PositiveInt  # images an optimiser step
    # images that share BN statistics and a dropout draw; ranks and accumulation distribute whole microbatches
    microbatch_size: PositiveInt
    precision: Literal["fp32", "bf16", "fp16"]
    label_smoothing: Fraction
    optim: Optim
    augment: Augment

    @model_validator(mode="after")
    def _whole_microbatches(self) -> "Training":
        if self.batch_size % self.microbatch_size:
            raise ValueError(f"microbatch_size {self.microbatch_size} does not divide batch_size {self.batch_size}")
        self.optim.check_length(self.epochs)
        return self
