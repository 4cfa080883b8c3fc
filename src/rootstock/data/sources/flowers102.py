"""Flowers-102: one archive of images, a label file and a split file, as the Visual Geometry Group publishes them.

Source: Nilsback and Zisserman, Automated flower classification over a large number of classes, ICVGIP 2008.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from rootstock.config.fetch import Official
from rootstock.data.archives import ArchiveError, inflate, members, pread
from rootstock.data.download import download
from rootstock.data.sources.flowers102_names import NAMES
from rootstock.data.sources.matlab import MAX_MAT_BYTES, read_numbers
from rootstock.data.sources.official import Archives, Published, differences
from rootstock.data.sources.record import Record
from rootstock.data.sums import sha256
from rootstock.schema.contract import ContractError, read_json, write_json

URL = "https://thor.robots.ox.ac.uk/datasets/flowers-102/"
IMAGES = Published("102flowers.tgz", 344862509, "52808999861908f626f3c1f4e79d11fa")
LABELS = Published("imagelabels.mat", 502, "e0620be6f572b9609742df49c70aed4d")
SPLITS = Published("setid.mat", 14989, "a5357ecc9cb78c4bef273ce3793fc85c")
TAR = "102flowers.tar"
INFLATED = "102flowers.tar.json"  # which tgz the tar came from, and the tar's own sum
SPLIT_VARIABLES = {"train": "trnid", "val": "valid", "test": "tstid"}
IMAGE = re.compile(r"(?:.*/)?image_(\d{5,9})\.jpg", re.IGNORECASE)


class Flowers102:
    """The three official files, or files in their layout; the tgz is inflated once into `own`.

    Args:
        config: which sums the files must have.
        roots: folders searched for the files; they may be read-only.
        own: the folder we may write to: downloads, the inflated tar, remembered sums.
    """

    def __init__(self, *, config: Official, roots: Sequence[Path], own: Path):
        self.config = config
        self.own = own
        self.ignored: dict[str, int] = {}
        self._archives = Archives(config=config, published=(IMAGES, LABELS, SPLITS), roots=roots, own=own)

    def fetch(self, *, progress: bool, offline: bool = False) -> list[dict]:
        """Find or download the files, compare their sums, and inflate the images' archive.

        Returns:
            A row each of the three original files: name, num_bytes, sha256.

        Raises:
            ArchiveError: files are missing and we are offline, or a sum differs, or the archive is damaged.
            DownloadError: a file cannot be downloaded.
        """
        missing = self._archives.missing()
        if missing and offline:
            raise ArchiveError(self._archives.describe_missing(missing, how=f"They are published at {URL}"))
        for file in missing:
            official = self.config.checksums == "official"
            download(
                URL + file.name,
                self.own / file.name,
                md5=file.md5 if official else None,
                num_bytes=file.num_bytes if official else None,
                progress=progress,
            )
        rows = self._archives.verify(progress=progress)
        self._inflate(next(row["sha256"] for row in rows if row["name"] == IMAGES.name))
        return rows

    def _inflate(self, tgz_sha256: str) -> None:
        if not self._tar_differences(tgz_sha256):
            return
        tar = self.own / TAR
        inflate(self._archives.path(IMAGES.name), tar)
        facts = {"tgz_sha256": tgz_sha256, "tar_sha256": sha256(tar, cache=self.own)}
        write_json(self.own / INFLATED, facts)

    def _tar_differences(self, tgz_sha256: str) -> list[str]:
        """Whether the inflated tar is there, whole, and from this tgz."""
        tar, note = self.own / TAR, self.own / INFLATED
        if not tar.is_file() or not note.is_file():
            return [f"{tar}: missing; fetch makes it"]
        try:
            facts = read_json(note)
        except ContractError:
            facts = None
        if not isinstance(facts, dict) or facts.get("tgz_sha256") != tgz_sha256:
            return [f"{tar}: was inflated from another {IMAGES.name}; fetch makes it again"]
        found = sha256(tar, cache=self.own)
        if found != facts.get("tar_sha256"):
            return [f"{tar}: found sha256 {found}, wanted {facts.get('tar_sha256')}; fetch makes it again"]
        return []

    def check(self, recorded: Sequence[dict]) -> list[str]:
        """Compare what lies here with the rows that `fetch` gave; one sentence a difference."""
        absent = {file.name for file in self._archives.missing()}
        names = [file.name for file in self._archives.published if file.name not in absent]
        found = differences(recorded, {name: self._archives.path(name) for name in names}, cache=self.own)
        tgz = [row["sha256"] for row in recorded if row["name"] == IMAGES.name]
        return found + (self._tar_differences(tgz[0]) if tgz else [])

    def path(self, archive: str) -> Path:
        """Where an archive named in the manifest lies here."""
        if archive == TAR:
            return self.own / TAR
        return self._archives.path(archive)

    def class_names(self) -> list[str]:
        """The flowers' names for 102 classes, else class_001 …; the index is the label."""
        num_classes = int(self._labels.max()) + 1
        if num_classes == len(NAMES):
            return list(NAMES)
        return [f"class_{number:03d}" for number in range(1, num_classes + 1)]

    def records(self, *, split_seed: int, val_fraction: float | None) -> Iterator[Record]:
        """Yield the images in the archive's order, in the official splits (the arguments change nothing here).

        Raises:
            ArchiveError: labels, splits and images do not belong together, or the archive is damaged.
        """
        splits, labels = self._splits, self._labels
        self._check_images()
        for member in members(self.path(TAR)):
            key, number = self._image(member.name)
            yield Record(key, str(splits[number - 1]), int(labels[number - 1]), TAR, member.offset, member.num_bytes)

    def _read(self, file: Published, variable: str) -> np.ndarray:
        path = self._archives.path(file.name)
        data = pread(path, 0, min(path.stat().st_size, MAX_MAT_BYTES + 1))
        return read_numbers(data, variable=variable, where=str(path))

    @cached_property
    def _labels(self) -> np.ndarray:
        """int64, (number of images,), 0-based."""
        return self._read(LABELS, "labels") - 1

    @cached_property
    def _splits(self) -> np.ndarray:
        """The split of each image, str, (number of images,)."""
        where = self._archives.path(SPLITS.name)
        num_images = len(self._labels)
        splits = np.full(num_images, "", dtype="<U5")
        for split, variable in SPLIT_VARIABLES.items():
            for number in self._read(SPLITS, variable):
                if number > num_images:
                    raise ArchiveError(f"{where}: {variable}: found image {number}, wanted 1 to {num_images}")
                if splits[number - 1]:
                    other = SPLIT_VARIABLES[str(splits[number - 1])]
                    raise ArchiveError(
                        f"{where}: image {number} is in {other} and again in {variable}; wanted one split"
                    )
                splits[number - 1] = split
        if (splits == "").any():
            number = int(np.flatnonzero(splits == "")[0]) + 1
            raise ArchiveError(f"{where}: image {number} is in no split; wanted one of {[*SPLIT_VARIABLES.values()]}")
        trained = np.bincount(self._labels[splits == "train"], minlength=int(self._labels.max()) + 1)
        if (trained == 0).any():
            label = int(np.flatnonzero(trained == 0)[0]) + 1
            raise ArchiveError(f"{where}: empty class: class {label} has no image in trnid, wanted at least one")
        return splits

    def _image(self, name: str) -> tuple[str, int]:
        match = IMAGE.fullmatch(name)
        if match is None:
            raise ArchiveError(f"{self.path(TAR)}: found {name!r}, wanted image_<number>.jpg only")
        return f"image_{match[1]}", int(match[1])

    def _check_images(self) -> None:
        """That the archive holds each labelled image once; a pass over headers before the first record is given."""
        tar, num_labels = self.path(TAR), len(self._labels)
        present = np.zeros(num_labels, dtype=bool)
        num_images = 0
        for member in members(tar):
            _, number = self._image(member.name)
            num_images += 1
            if 1 <= number <= num_labels:
                if present[number - 1]:
                    raise ArchiveError(f"{tar}: duplicate key: {member.name!r} is image {number} again")
                present[number - 1] = True
        if num_images != num_labels:
            labels = self._archives.path(LABELS.name)
            raise ArchiveError(f"{labels}: found {num_labels} labels, wanted {num_images}, the images in {tar}")
        if not present.all():
            number = int(np.flatnonzero(~present)[0]) + 1
            raise ArchiveError(f"{tar}: image_{number:05d}.jpg is missing; wanted images 1 to {num_labels}")
