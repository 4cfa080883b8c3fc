"""The section `stats.<dataset>`: the geometry in which statistics are measured."""

from pydantic import model_validator

from rootstock.config.section import PositiveInt, Section


class Stats(Section):
    """Each training image is resized to a short side of `short_side` and cut to its central square."""

    short_side: PositiveInt  # pixels
    crop_size: PositiveInt  # pixels

    @model_validator(mode="after")
    def _crop_fits(self) -> "Stats":
        if self.crop_size > self.short_side:
            raise ValueError(f"crop_size {self.crop_size} > short_side {self.short_side}; wanted at most as large")
        return self
