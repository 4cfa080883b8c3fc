"""The only place that chooses a collection's class."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rootstock.config import fetch
from rootstock.data.sources.record import Record


class Source(Protocol):
    """What every collection can do; collections differ nowhere else."""

    ignored: Mapping[str, int]  # files that `fetch` passed over, by suffix

    def fetch(self, *, progress: bool, offline: bool = False) -> list[dict]:
        """Make, download or find the files; the rows of source.json."""

    def check(self, recorded: Sequence[dict]) -> list[str]:
        """What differs now from the rows that `fetch` gave, in words."""

    def records(self, *, split_seed: int, val_fraction: float | None) -> Iterator[Record]:
        """The images, in a deterministic order, one at a time; `val_fraction` is None where splits are fixed."""

    def class_names(self) -> list[str]:
        """Names whose index is the label."""

    def path(self, archive: str) -> Path:
        """Where an archive named in the manifest lies here."""


def open_source(config: fetch.Fetch, *, roots: Sequence[Path], own: Path) -> Source:
    """Return the collection that the configuration names.

    Args:
        config: the section `fetch.<dataset>`.
        roots: folders searched for archives, in order; they may be read-only.
        own: the folder we may write to: downloads, generated and inflated archives, remembered sums.
    """
    section = config.root
    match section.collection:
        case "demo":
            from rootstock.data.sources.demo import Demo

            return Demo(config=section, roots=list(roots), own=own)
        case "ilsvrc2012":
            from rootstock.data.sources.ilsvrc2012 import Ilsvrc2012

            return Ilsvrc2012(config=section, roots=list(roots), own=own)
        case "flowers102":
            from rootstock.data.sources.flowers102 import Flowers102

            return Flowers102(config=section, roots=list(roots), own=own)
        case "folder":
            from rootstock.data.sources.folder import Folder

            return Folder(config=section, roots=list(roots), own=own)
    raise AssertionError(section)
