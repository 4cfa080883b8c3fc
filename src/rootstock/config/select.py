"""What decides which replica is chosen; the split is always `val`."""

from typing import Literal

from rootstock.config.section import Section


class Select(Section):
    """The section `select`."""

    view: Literal["center", "ten"]
    metric: Literal["top1", "mean_per_class"]
