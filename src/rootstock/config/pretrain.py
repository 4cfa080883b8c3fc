"""Pretraining of the backbone on the source collection."""

from pydantic import model_validator

from rootstock.config.model import Arch
from rootstock.config.section import NonNegativeInt, PositiveInt, Section
from rootstock.config.training import Preprocess, Training


class Pretrain(Section):
    """The section `pretrain`."""

    seed: NonNegativeInt
    arch: Arch
    image_size: PositiveInt  # pixels a side of what the network sees
    resize_size: PositiveInt  # short side before the central crop, in validation and test
    preprocess: Preprocess
    training: Training

    @model_validator(mode="after")
    def _crop_fits(self) -> "Pretrain":
        if self.resize_size < self.image_size:
            raise ValueError(f"resize_size {self.resize_size} is smaller than image_size {self.image_size}")
        return self
