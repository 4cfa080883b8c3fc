"""shards: write a collection's images as WebDataset tars with an index (library: rootstock.data.shards)."""

import argparse

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.shards import Shards
from rootstock.data import shards
from rootstock.data.parallel import num_workers
from rootstock.ops.collection import open_fetched
from rootstock.ops.stage import stage


@stage
def main() -> None:
    """Write data/shards/<dataset>/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=layout.DATASETS, required=True)
    dataset = parser.parse_args().dataset

    config = load_section(layout.PARAMS, Shards, "shards", dataset)
    shards.write(
        layout.manifest(dataset),
        locate=open_fetched(dataset).path,
        folder=layout.shards(dataset),
        short_side=config.short_side,
        quality=config.quality,
        max_shard_bytes=config.max_shard_bytes,
        seed=config.seed,
        workers=num_workers(),
    )


if __name__ == "__main__":
    main()
