"""How much the report shows."""

from rootstock.config.section import NonNegativeInt, PositiveInt, Section


class Report(Section):
    """The section `report`."""

    num_samples: PositiveInt  # images a gallery
    num_errors: NonNegativeInt  # of the chosen model's worst errors
    num_rejects: NonNegativeInt  # rows of each collection's rejects
    num_duplicates: NonNegativeInt  # pairs of each collection, side by side
