"""ILSVRC2012 (ImageNet-1k): the three official archives, read in place.

The training archive holds a tar a class; offsets in records count from the start of the outer file.

Source: Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 2015.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rootstock import rng
from rootstock.config.fetch import Official
from rootstock.data.archives import ArchiveError, Member, members
from rootstock.data.sources.matlab import read_variable
from rootstock.data.sources.official import Archives, Published, differences
from rootstock.data.sources.record import Record

TRAIN = Published("ILSVRC2012_img_train.tar", 147897477120, "1d675b47d978889d74fa0da5fadfb00e")
VAL = Published("ILSVRC2012_img_val.tar", 6744924160, "29b22e2961454d5413ddabcf34fc5622")
DEVKIT = Published("ILSVRC2012_devkit_t12.tar.gz", 2568145, "fa75699e90414af021442c21a62c3abf")
META = "data/meta.mat"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT_BYTES = 64 << 20  # inflated
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children")
TRAIN_IMAGE = re.compile(r"(?:.*/)?([A-Za-z0-9_-]+)\.jpe?g", re.IGNORECASE)
VAL_IMAGE = re.compile(r"(?:.*/)?(ILSVRC2012_val_(\d{8}))\.jpe?g", re.IGNORECASE)
HOW = (
    "They are free for research after a registration at https://image-net.org/download-images "
    "(ILSVRC2012: training images of tasks 1 & 2, validation images, development kit of tasks 1 & 2)."
)


class Devkit(NamedTuple):
    """What the development kit says."""

    wnids: list[str]  # sorted: the index is the label
    names: list[str]  # in the order of wnids
    val_labels: np.ndarray  # int64, (number of validation images,)


class Ilsvrc2012:
    """The official validation set is `test`; a class-balanced slice of train is `val`.

    Args:
        config: which sums the files must have.
        roots: folders searched for the files; they may be read-only.
        own: the folder we may write to; only remembered sums are written.
    """

    def __init__(self, *, config: Official, roots: Sequence[Path], own: Path):
        self.config = config
        self.own = own
        self.ignored: dict[str, int] = {}
        self._archives = Archives(config=config, published=(TRAIN, VAL, DEVKIT), roots=roots, own=own)

    def fetch(self, *, progress: bool, offline: bool = False) -> list[dict]:
        """Find the archives and compare their sums; they are never downloaded, for they need a registration.

        Returns:
            A row each file: name, num_bytes, sha256.

        Raises:
            ArchiveError: files are missing (which, their sums, where to put them), or a size or sum differs.
        """
        missing = self._archives.missing()
        if missing:
            raise ArchiveError(self._archives.describe_missing(missing, how=HOW))
        return self._archives.verify(progress=progress)

    def check(self, recorded: Sequence[dict]) -> list[str]:
        """Compare what lies here with the rows that `fetch` gave; one sentence a difference."""
        absent = {file.name for file in self._archives.missing()}
        names = [file.name for file in self._archives.published if file.name not in absent]
        return differences(recorded, {name: self._archives.path(name) for name in names}, cache=self.own)

    def path(self, archive: str) -> Path:
        """Where an archive named in the manifest lies here."""
        return self._archives.path(archive)

    def class_names(self) -> list[str]:
        """The words of each synset, sorted by wnid; the index is the label."""
        return self._devkit.names

    def records(self, *, split_seed: int, val_fraction: float | None) -> Iterator[Record]:
        """Yield train and val in the training archive's order, then test.

        Args:
            split_seed: names the streams that choose the val slice.
            val_fraction: of each class's training images; at least one image of a class when above 0.

        Raises:
            ArchiveError: the archives do not belong together or are damaged.
        """
        assert val_fraction is not None, "the configuration sees to it"
        labels = {wnid: label for label, wnid in enumerate(self._devkit.wnids)}
        classes = self._classes(labels)
        self._check_val_images()
        for wnid, member in classes:
            yield from self._train_records(wnid, member, labels[wnid], split_seed, val_fraction)
        for member in members(self.path(VAL.name)):
            stem, number = self._val_image(member.name)
            label = int(self._devkit.val_labels[number - 1])
            yield Record(f"val/{stem}", "test", label, VAL.name, member.offset, member.num_bytes)

    def _classes(self, labels: dict[str, int]) -> list[tuple[str, Member]]:
        """Each class's tar inside the training archive."""
        archive = self.path(TRAIN.name)
        found: dict[str, Member] = {}
        for member in members(archive):
            wnid = member.name.removesuffix(".tar").rpartition("/")[2]
            if not member.name.endswith(".tar") or wnid not in labels:
                raise ArchiveError(
                    f"{archive}: unknown class tar {member.name!r}: wanted one of the {len(labels)} in {META}"
                )
            if wnid in found:
                raise ArchiveError(f"{archive}: {member.name!r} and {found[wnid].name!r} are the same class")
            found[wnid] = member
        absent = sorted(set(labels) - set(found))
        if absent:
            raise ArchiveError(
                f"{archive}: empty class: {len(absent)} of {len(labels)} classes have no tar, the first {absent[0]}.tar"
            )
        return list(found.items())

    def _train_records(
        self, wnid: str, outer: Member, label: int, split_seed: int, val_fraction: float
    ) -> Iterator[Record]:
        archive = self.path(TRAIN.name)
        images: dict[str, Member] = {}
        for member in members(archive, base=outer.offset, length=outer.num_bytes):
            match = TRAIN_IMAGE.fullmatch(member.name)
            if match is None:
                raise ArchiveError(f"{archive}: {outer.name}: found {member.name!r}, wanted <name>.JPEG only")
            if match[1] in images:
                raise ArchiveError(f"{archive}: {outer.name}: duplicate key {wnid}/{match[1]}: {member.name!r}")
            images[match[1]] = member
        if not images:
            raise ArchiveError(f"{archive}: empty class: {outer.name} holds no images, wanted at least one")
        num_val = max(1, round(val_fraction * len(images))) if val_fraction > 0 else 0
        if num_val >= len(images):
            raise ArchiveError(
                f"{archive}: {outer.name}: {len(images)} images, {num_val} of them for val "
                f"(val_fraction {val_fraction}): none left to train on"
            )
        names = sorted(images)  # so that the slice does not depend on the archive's order
        order = rng.stream("manifest-val", split_seed, wnid).permutation(len(names))
        val = {names[index] for index in order[:num_val]}
        for stem, member in images.items():
            split = "val" if stem in val else "train"
            yield Record(f"{wnid}/{stem}", split, label, TRAIN.name, member.offset, member.num_bytes)

    def _val_image(self, name: str) -> tuple[str, int]:
        match = VAL_IMAGE.fullmatch(name)
        if match is None:
            raise ArchiveError(f"{self.path(VAL.name)}: found {name!r}, wanted ILSVRC2012_val_<8 digits>.JPEG only")
        return match[1], int(match[2])

    def _check_val_images(self) -> None:
        """That each validation image has its line in the ground truth; a pass over headers."""
        archive = self.path(VAL.name)
        num_truths = len(self._devkit.val_labels)
        present = np.zeros(num_truths, dtype=bool)
        num_images = 0
        for member in members(archive):
            _, number = self._val_image(member.name)
            num_images += 1
            if 1 <= number <= num_truths:
                if present[number - 1]:
                    raise ArchiveError(f"{archive}: duplicate key: {member.name!r} is image {number} again")
                present[number - 1] = True
        if num_images != num_truths:
            raise ArchiveError(
                f"{self.path(DEVKIT.name)}: {TRUTH}: found {num_truths} labels, "
                f"wanted {num_images}, the images in {archive}"
            )
        if not present.all():
            number = int(np.flatnonzero(~present)[0]) + 1
            raise ArchiveError(f"{archive}: image {number} is missing; wanted images 1 to {num_truths}")

    @cached_property
    def _devkit(self) -> Devkit:
        return read_devkit(self.path(DEVKIT.name))


def read_devkit(path: Path) -> Devkit:
    """Read classes and validation labels from the development kit, in memory.

    Raises:
        ArchiveError: the kit is damaged, too large, lacks a file, or its classes are not what they should be.
    """
    meta, truth = _devkit_members(path)
    where = f"{path}: {META}"
    synsets = read_variable(meta, variable="synsets", where=where)
    absent = [field for field in FIELDS if field not in (synsets.dtype.names or ())]
    if absent:
        raise ArchiveError(f"{where}: synsets: found fields {synsets.dtype.names}, wanted {', '.join(FIELDS)}")
    try:
        leaves = [
            (str(row["WNID"]), int(row["ILSVRC2012_ID"]), str(row["words"]))
            for row in synsets
            if int(row["num_children"]) == 0  # inner synsets are no classes
        ]
    except (TypeError, ValueError) as error:
        raise ArchiveError(f"{where}: synsets: {error}") from None
    leaves.sort()
    _check_leaves(leaves, where)
    labels_by_id = {number: label for label, (_, number, _) in enumerate(leaves)}
    repeated = Counter(words for _, _, words in leaves)  # ImageNet has two cranes
    names = [words if repeated[words] == 1 else f"{words} ({wnid})" for wnid, _, words in leaves]
    val_labels = _val_labels(truth, labels_by_id, f"{path}: {TRUTH}")
    return Devkit([wnid for wnid, _, _ in leaves], names, val_labels)


def _check_leaves(leaves: list[tuple[str, int, str]], where: str) -> None:
    if not leaves:
        raise ArchiveError(f"{where}: found no synset without children, wanted at least one class")
    for wnid, _, _ in leaves:
        if re.fullmatch(r"n\d{8}", wnid) is None:
            raise ArchiveError(f"{where}: WNID: found {wnid!r}, wanted n and 8 digits")
    for position, what in ((0, "WNID"), (1, "ILSVRC2012_ID")):
        value, count = Counter(leaf[position] for leaf in leaves).most_common(1)[0]
        if count > 1:
            raise ArchiveError(f"{where}: {what}: found {value} {count} times, wanted it once")


def _val_labels(truth: bytes, labels_by_id: dict[int, int], where: str) -> np.ndarray:
    labels = []
    for line, text in enumerate(truth.split(), start=1):
        number = int(text) if text.isdigit() and len(text) < 10 else -1
        if number not in labels_by_id:
            raise ArchiveError(
                f"{where}: line {line}: found {text.decode('ascii', 'replace')!r}, wanted a class's ILSVRC2012_ID"
            )
        labels.append(labels_by_id[number])
    return np.array(labels, dtype=np.int64)


def _devkit_members(path: Path) -> tuple[bytes, bytes]:
    """The bytes of the two files we need; nothing is extracted to disk, other members are passed over."""
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as stream:
            inflated = stream.read(MAX_DEVKIT_BYTES + 1)
        if len(inflated) > MAX_DEVKIT_BYTES:
            raise ArchiveError(
                f"{path} inflates to more than {MAX_DEVKIT_BYTES} bytes: refused as a decompression bomb"
            )
        with tarfile.open(fileobj=io.BytesIO(inflated), mode="r:") as archive:
            for member in archive:
                wanted = next((name for name in (META, TRUTH) if f"/{member.name}".endswith(f"/{name}")), None)
                if wanted is None:
                    continue
                if not member.isreg() or wanted in found:
                    raise ArchiveError(f"{path}: {member.name!r}: wanted one regular file")
                found[wanted] = archive.extractfile(member).read()
    except EOFError:
        raise ArchiveError(f"{path} is truncated: the gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise ArchiveError(f"{path} is not a whole .tar.gz: {error}") from None
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None
    for name in (META, TRUTH):
        if name not in found:
            raise ArchiveError(f"{path}: found no {name}")
    return found[META], found[TRUTH]
