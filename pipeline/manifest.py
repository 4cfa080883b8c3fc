"""manifest: list, split and check every image of a collection (library: rootstock.data.manifest)."""

import argparse

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.manifest import Manifest
from rootstock.data import manifest
from rootstock.data.parallel import num_workers
from rootstock.ops.collection import open_fetched
from rootstock.ops.stage import stage
from rootstock.schema.contract import read_table
from rootstock.schema.duplicates import DUPLICATES


@stage
def main() -> None:
    """Write data/manifest/<dataset>.parquet, and the rejects and the duplicates beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=layout.DATASETS, required=True)
    dataset = parser.parse_args().dataset

    config = load_section(layout.PARAMS, Manifest, "manifest", dataset)
    source = open_fetched(dataset)
    facts = manifest.build(
        source.records(split_seed=config.split_seed, val_fraction=config.val_fraction),
        locate=source.path,
        class_names=source.class_names(),
        collection=source.config.collection,
        backend=config.decode.backend,
        max_pixels=config.decode.max_pixels,
        split_seed=config.split_seed,
        gate_fraction=config.gate_fraction,
        max_reject_fraction=config.max_reject_fraction,
        drop_duplicates=config.drop_duplicates,
        near_radius=config.near_radius,
        manifest=layout.manifest(dataset),
        rejects=layout.rejects(dataset),
        duplicates=layout.duplicates(dataset),
        workers=num_workers(),
    )
    num_duplicates = len(read_table(layout.duplicates(dataset), DUPLICATES))
    print(f"{dataset}: {facts['num_images']}, {facts['num_rejects']} refused, {num_duplicates} duplicates")


if __name__ == "__main__":
    main()
