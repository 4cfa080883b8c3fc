"""manifest: list, split and check every image of a collection (library: rootstock.data.manifest)."""

import argparse

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.manifest import Manifest
from rootstock.data import manifest
from rootstock.data.parallel import num_workers
from rootstock.ops.collection import open_fetched
from rootstock.ops.stage import stage


@stage
def main() -> None:
    """Write data/manifest/<dataset>.parquet and the rejects beside it."""
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
        manifest=layout.manifest(dataset),
        rejects=layout.rejects(dataset),
        workers=num_workers(),
    )
    print(f"{dataset}: {facts['num_images']}, {facts['num_rejects']} refused, duplicates {facts['duplicates']}")


if __name__ == "__main__":
    main()
