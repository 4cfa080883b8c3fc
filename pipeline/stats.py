"""stats: measure a collection's training images in exact integers (library: rootstock.data.stats)."""

import argparse

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.stats import Stats
from rootstock.data import stats
from rootstock.data.parallel import num_workers
from rootstock.ops.collection import open_fetched
from rootstock.ops.stage import stage
from rootstock.schema import stats as stats_schema


@stage
def main() -> None:
    """Write data/stats/<dataset>.json and the arrays beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=layout.DATASETS, required=True)
    dataset = parser.parse_args().dataset

    config = load_section(layout.PARAMS, Stats, "stats", dataset)
    measured = stats.measure(
        layout.manifest(dataset),
        locate=open_fetched(dataset).path,
        short_side=config.short_side,
        crop_size=config.crop_size,
        workers=num_workers(),
    )
    stats_schema.write(layout.stats(dataset), layout.stats_arrays(dataset), measured)


if __name__ == "__main__":
    main()
