"""A person's own images: `class/*.jpg`, or `{train,val,test}/class/*.jpg`, read where they lie."""

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rootstock import rng
from rootstock.config import fetch
from rootstock.data.archives import ArchiveError
from rootstock.data.sources.official import differences
from rootstock.data.sources.record import Record
from rootstock.data.sums import sums
from rootstock.schema.names import KEY, SPLITS

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp")
# images too, though as a rule none that we read: records all the same, so that the manifest lists them with its reason
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".tif", ".tiff")
MAX_PART = 80  # characters of a key between two `/`: with a hash and an extension behind it, it fits a tar's 100
WANTED = "wanted <class>/<image> or {train,val,test}/<class>/<image>"


class Image(NamedTuple):
    """An image file of a class."""

    name: str  # relative to the collection's folder, POSIX
    num_bytes: int


class Class(NamedTuple):
    """The images of one class in one folder."""

    split: str | None  # None where the collection gives no splits
    name: str
    images: list[Image]  # sorted by name


class Folder:
    """Each image file is an archive of its own, at offset 0; nothing is copied.

    Args:
        config: where the images are, and the fractions for a collection without given splits.
        roots: not used; a folder is named by its path alone.
        own: the folder we may write to; only remembered sums are written.
    """

    def __init__(self, *, config: fetch.Folder, roots: Sequence[Path], own: Path):
        self.config = config
        self.own = own
        self.root = Path(config.path).expanduser().resolve()
        self.ignored: Counter[str] = Counter()  # by suffix, files that are no images; of the last walk

    def fetch(self, *, progress: bool, offline: bool = False) -> list[dict]:
        """List every image file with its sum; nothing is downloaded, nothing is copied.

        Returns:
            A row each image: name, num_bytes, sha256.

        Raises:
            ArchiveError: as `records`.
        """
        # through the records, so that whatever is wrong with the layout is said now; no seed matters here
        records = self.records(split_seed=0, val_fraction=None)
        images = [Image(record.archive, record.num_bytes) for record in records]
        found = sums(
            [self.path(image.name) for image in images], algorithms=("sha256",), cache=self.own, progress=progress
        )
        return [
            {"name": image.name, "num_bytes": image.num_bytes, "sha256": current["sha256"]}
            for image, current in zip(images, found, strict=True)
        ]

    def check(self, recorded: Sequence[dict]) -> list[str]:
        """Compare what lies here with the rows that `fetch` gave, new images included; one sentence a difference."""
        paths = {image.name: self.path(image.name) for found in self._walk() for image in found.images}
        return differences(recorded, paths, cache=self.own)

    def path(self, archive: str) -> Path:
        """Where an image named in the manifest lies here."""
        return self.root / archive

    def class_names(self) -> list[str]:
        """The names of the class folders, of train where splits are given, sorted; the index is the label."""
        names = sorted(found.name for found in self._walk() if found.split in (None, "train"))
        if len(names) < 2:
            raise ArchiveError(f"{self.root}: found {len(names)} classes, wanted at least 2; {WANTED}")
        return names

    def records(self, *, split_seed: int, val_fraction: float | None) -> Iterator[Record]:
        """Yield the images by split as given, or by class, each image's split drawn by the configuration's fractions.

        Args:
            split_seed: names the draws that split a collection without given splits.
            val_fraction: None; the configuration has this collection's own.

        Raises:
            ArchiveError: the layout is not one of the two, a class is empty or too small, two images share a key.
        """
        class_names = self.class_names()
        for found in self._walk():
            label = self._label(found, class_names)
            keys = self._keys(found.images)
            splits = [found.split] * len(keys) if found.split else self._split(found, keys, split_seed)
            for key, image, split in zip(keys, found.images, splits, strict=True):
                yield Record(key, split, label, image.name, 0, image.num_bytes)

    def _label(self, found: Class, class_names: list[str]) -> int:
        if found.name not in class_names:
            raise ArchiveError(
                f"{self.root}: {found.split} has the class {found.name!r}, which train lacks; "
                f"wanted one of train's {len(class_names)} classes"
            )
        return class_names.index(found.name)

    def _split(self, found: Class, keys: list[str], split_seed: int) -> list[str]:
        """A split for each image, by its own place in [0, 1); at least one image of the class in every split."""
        if len(keys) < len(SPLITS):
            raise ArchiveError(
                f"{self.root}: class {found.name!r}: found {len(keys)} images, wanted at least {len(SPLITS)}: "
                "one each for train, val and test"
            )
        places = [rng.key("folder-split", split_seed, found.name, key) / 2**64 for key in keys]
        return split_by_place(places, val_fraction=self.config.val_fraction, test_fraction=self.config.test_fraction)

    def _keys(self, images: list[Image]) -> list[str]:
        """Each image's key, unique."""
        owners: dict[str, str] = {}
        for image in images:
            key = key_of(image.name)
            if key in owners:
                raise ArchiveError(f"{self.root}: duplicate key {key!r}: {owners[key]} and {image.name}; rename one")
            owners[key] = image.name
        return list(owners)

    # ------------------------------------------------------------------------------------------------- the folder tree

    def _walk(self) -> Iterator[Class]:
        """Yield the classes in the order split, name; count other files in `ignored`."""
        self.ignored = Counter()
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing"
            raise ArchiveError(
                f"folder: path {self.config.path!r}: found {found} at {self.root}, wanted a folder of images"
            )
        folders = self._folders(self.root)
        given = [split for split in SPLITS if split in folders]
        if not given:
            for name in folders:
                yield self._class(None, name, self.root / name)
            return
        others = [name for name in folders if name not in SPLITS]
        if others:
            raise ArchiveError(
                f"{self.root}: found {', '.join(given)} beside {', '.join(others[:3])}; {WANTED}, not both"
            )
        absent = [split for split in SPLITS if split not in given]
        if absent:
            raise ArchiveError(
                f"{self.root}: found {', '.join(given)} without {', '.join(absent)}; "
                "wanted all of train, val and test, or none of them (then each class is split at random)"
            )
        for split in SPLITS:
            for name in self._folders(self.root / split):
                yield self._class(split, name, self.root / split / name)

    def _folders(self, folder: Path) -> list[str]:
        """Names of the subfolders, sorted; images are not expected here."""
        names = []
        for entry in self._entries(folder):
            if stat.S_ISDIR(entry.stat().st_mode):
                names.append(entry.name)
            elif _is_image(entry.name):
                raise ArchiveError(f"{self.root}: {self._relative(entry)} lies in no class folder; {WANTED}")
            else:
                self.ignored[entry.suffix.lower() or "no suffix"] += 1
        return names

    def _class(self, split: str | None, name: str, folder: Path) -> Class:
        images = []
        for entry in self._entries(folder):
            status = entry.stat()
            if stat.S_ISDIR(status.st_mode):
                raise ArchiveError(f"{self.root}: {self._relative(entry)} is a folder inside a class; {WANTED}")
            if not _is_image(entry.name):
                self.ignored[entry.suffix.lower() or "no suffix"] += 1
            elif not stat.S_ISREG(status.st_mode):
                raise ArchiveError(f"{self.root}: {self._relative(entry)} is not a regular file")
            else:
                images.append(Image(self._relative(entry), status.st_size))
        if not images:
            raise ArchiveError(
                f"{self.root}: empty class: {self._relative(folder)} holds no images, "
                f"wanted at least one of {', '.join(SUFFIXES)}"
            )
        return Class(split, name, images)

    def _entries(self, folder: Path) -> list[Path]:
        """What is in a folder, sorted; hidden files are counted as ignored, links out of the collection refused."""
        found = []
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise ArchiveError(f"{folder} cannot be read: {error.strerror}") from None
        for name in names:
            if name.startswith("."):
                self.ignored["hidden"] += 1
                continue
            path = folder / name
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
                raise ArchiveError(
                    f"{self.root}: {self._relative(path)!r} has a name that cannot be written as text; rename it"
                )
            if path.is_symlink() and not (Path(os.path.realpath(path)).is_relative_to(self.root) and path.exists()):
                raise ArchiveError(
                    f"{self.root}: {self._relative(path)} is a link out of the folder or to nothing; not followed"
                )
            found.append(path)
        return found

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES + OTHER_SUFFIXES)


def split_by_place(places: Sequence[float], *, val_fraction: float, test_fraction: float) -> list[str]:
    """Split a class: an image's split is its own place's, whatever the other images are, unless a split stays empty.

    val is [0, val_fraction), test the next test_fraction, train the rest. A split in which no place lies takes the
    image nearest to it: of val or test where that one keeps another, else of train. So at most two images lie outside
    their own split, none as soon as each split has an image of its own; and no image leaves train when others arrive,
    unless train had none of its own.

    Args:
        places: each image's, in [0, 1]; at least three.

    Returns:
        A split for each place, in their order.
    """
    assert len(places) >= len(SPLITS)
    ends = {
        "val": (0.0, val_fraction),
        "test": (val_fraction, val_fraction + test_fraction),
        "train": (val_fraction + test_fraction, 1.0),
    }
    splits = [next((name for name in ("val", "test") if place < ends[name][1]), "train") for place in places]
    for name, (low, high) in ends.items():
        if name in splits:
            continue
        shared = [index for index, split in enumerate(splits) if splits.count(split) > 1]
        # what a model was trained on must never become what it is judged on, hence train last
        lenders = [index for index in shared if splits[index] != "train"] or shared
        nearest = min(lenders, key=lambda index: (max(low - places[index], places[index] - high), places[index]))
        splits[nearest] = name
    return splits


def key_of(name: str) -> str:
    """An image's key: its relative path without the extension, other characters replaced, long names cut.

    Where something was replaced or cut, 8 digits of the path's sha256 keep keys of different paths apart. Extensions
    that we hardly read stay in the key: a camera's a.heic may lie beside a.jpg.
    """
    stem = name if name.lower().endswith(OTHER_SUFFIXES) else name.rpartition(".")[0]
    parts = stem.split("/")
    if re.fullmatch(KEY, stem) and max(map(len, parts)) <= MAX_PART:
        return stem
    cleaned = "/".join(re.sub(r"[^A-Za-z0-9_-]", "_", part)[:MAX_PART] for part in parts)
    return f"{cleaned}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
