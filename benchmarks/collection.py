"""The benchmarks' images: the same bytes as loose files for the peers and as shards for us, natural and small."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import record  # beside this script

from rootstock.data import manifest, shards
from rootstock.data.parallel import num_workers
from rootstock.data.shard_set import ShardSet
from rootstock.data.sources.record import Record

NATURAL = record.ROOT.parent / "shared/data/imagenet-natural/images.tar"
SHORT_SIDE, QUALITY = 256, 90
MAX_SHARD_BYTES = 4 << 20  # several shards, so that peers that hand whole shards to workers have work for each


class Collection:
    """A folder with `images/<class>/<name>`, `manifest.parquet` and `shards/`; made when it is not there.

    Attributes:
        images: folder of class folders.
        shards: folder of our shards, plain WebDataset tars, of the same bytes.
        manifest: table of the loose files, each `repeats` times.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.images, self.shards, self.manifest = folder / "images", folder / "shards", folder / "manifest.parquet"

    def paths(self) -> list[Path]:
        """The loose files, sorted."""
        return sorted(self.images.glob("*/*"))

    def locate(self, name: str) -> Path:
        """Where an archive of the manifest lies."""
        return self.images / name


def natural(folder: Path, tar: Path) -> Collection:
    """Lay out the photographs of a tar at their natural size, one class each.

    Raises:
        FileNotFoundError: no such tar.
    """
    collection = Collection(folder / "natural")
    if not collection.shards.joinpath("index.parquet").exists():
        with tarfile.open(tar) as archive:
            for member in archive:
                if member.isfile():
                    path = collection.images / Path(member.name).stem / Path(member.name).name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())
        describe(collection, collection.manifest, repeats=1)
        write_shards(collection, collection.shards, short_side=None)
    return collection


def short(folder: Path, source: Collection) -> Collection:
    """Lay out the same photographs as our own sharder shrinks them, peers reading the very same bytes."""
    collection = Collection(folder / f"short{SHORT_SIDE}")
    if not collection.shards.joinpath("index.parquet").exists():
        collection.folder.mkdir(parents=True, exist_ok=True)
        write_shards(source, collection.shards, short_side=SHORT_SIDE)
        with ShardSet(collection.shards, verify="always") as samples:
            for position, key in enumerate(samples.keys):
                path = collection.images / key.replace("/", "-") / "0.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(samples.read(position))
        describe(collection, collection.manifest, repeats=1)
    return collection


def describe(collection: Collection, path: Path, *, repeats: int) -> Path:
    """Write a manifest that names each file `repeats` times, under keys of its own; returns its path."""
    manifest.build(
        records(collection, repeats=repeats),
        locate=collection.locate,
        class_names=[path.parent.name for path in collection.paths()],
        collection="benchmark",
        backend="simplejpeg",
        max_pixels=10**8,
        split_seed=0,
        gate_fraction=0.5,
        max_reject_fraction=0.0,
        drop_duplicates="none",
        near_radius=0,
        manifest=path,
        rejects=path.with_name("rejects.parquet"),
        duplicates=path.with_name("duplicates.parquet"),
        workers=num_workers(),
    )
    return path


def records(collection: Collection, *, repeats: int) -> Iterator[Record]:
    """Yield the loose files' records; each is an archive of its own."""
    for turn in range(repeats):
        for label, path in enumerate(collection.paths()):
            name = path.relative_to(collection.images).as_posix()
            key = f"{turn:03d}-" + re.sub("[^A-Za-z0-9_-]", "-", path.parent.name)
            yield Record(key, "train", label, name, 0, path.stat().st_size)


def write_shards(source: Collection, folder: Path, *, short_side: int | None) -> None:
    """Write a collection's shards through the public function."""
    shards.write(
        source.manifest,
        locate=source.locate,
        folder=folder,
        short_side=short_side,
        quality=QUALITY,
        max_shard_bytes=MAX_SHARD_BYTES,
        seed=0,
        workers=num_workers(),
    )
