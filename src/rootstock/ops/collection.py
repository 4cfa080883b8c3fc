"""Open the collection that a dataset's configuration names, from the folders of this project."""

from pathlib import Path

from rootstock import layout
from rootstock.config.fetch import Fetch
from rootstock.config.load import load_section
from rootstock.data.sources.open import Source, open_source
from rootstock.schema import source as source_schema


class StaleArchivesError(ValueError):
    """The archives are no longer those that `fetch` saw."""


def open_collection(dataset: str) -> Source:
    """Open a dataset's collection without looking at its archives."""
    config = load_section(layout.PARAMS, Fetch, "fetch", dataset)
    section = config.root
    if section.collection == "folder":  # a queued experiment runs in a copy: a relative path means the person's own
        path = layout.project() / Path(section.path).expanduser()
        section = section.model_copy(update={"path": str(path)})
        config = Fetch(section)
    own = f"demo-{section.layout}" if section.collection == "demo" else section.collection
    return open_source(config, roots=layout.archives(), own=layout.own_archives(own))


def open_fetched(dataset: str) -> Source:
    """Open a dataset's collection after comparing its archives with what `fetch` noted.

    Raises:
        StaleArchivesError: naming each difference.
    """
    source = open_collection(dataset)
    differences = source.check(source_schema.read(layout.source(dataset))["files"])
    if differences:
        more = f"\n  … and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise StaleArchivesError(
            f"{dataset}: the archives are not those that `fetch` saw:\n  "
            + "\n  ".join(differences[:5])
            + f"{more}\nrun `make repro`: it fetches again what has changed"
        )
    return source
