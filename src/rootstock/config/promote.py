"""What a challenger must show before it replaces the champion, and under which name both are registered."""

from typing import Annotated

from pydantic import Field

from rootstock.config.section import Fraction, PositiveFloat, Section


class Promote(Section):
    """The section `promote`."""

    model: Annotated[str, Field(pattern="^[a-z0-9-]+$")]  # in the registry; one name a collection
    level: Annotated[float, Field(gt=0.0, lt=0.5)]  # chance of promoting one that is no better
    margin: Fraction  # how much lower the mean per-class accuracy may be
    class_floor: Fraction  # accuracy below which no class may fall
    max_ece: Fraction
    max_latency_ms: PositiveFloat  # one image, median
