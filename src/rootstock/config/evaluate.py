"""How replicas are evaluated; the geometry comes with the model, from its bundle's facts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rootstock.config.section import PositiveInt, Section


def _unique(views: list[str]) -> list[str]:
    if len(set(views)) != len(views):
        raise ValueError("each view once")
    return views


class Evaluate(Section):
    """The section `evaluate`."""

    views: Annotated[list[Literal["center", "ten"]], Field(min_length=1), AfterValidator(_unique)]
    batch_size: PositiveInt  # crops a forward pass
