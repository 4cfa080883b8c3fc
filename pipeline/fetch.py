"""fetch: find, download or generate a collection's archives (library: rootstock.data.sources)."""

import argparse

from rootstock import layout
from rootstock.config.fetch import Fetch
from rootstock.config.load import load_section
from rootstock.ops.collection import open_collection
from rootstock.ops.stage import stage
from rootstock.schema import source as source_schema


@stage
def main() -> None:
    """Write data/raw/<dataset>/source.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=layout.DATASETS, required=True)
    dataset = parser.parse_args().dataset

    config = load_section(layout.PARAMS, Fetch, "fetch", dataset).root
    source = open_collection(dataset)
    files = source.fetch(progress=True)
    source_schema.write(layout.source(dataset), collection=config.collection, verified=config.checksums, files=files)
    if source.ignored:
        print(f"{dataset}: ignored files that are no images: {dict(sorted(source.ignored.items()))}")


if __name__ == "__main__":
    main()
