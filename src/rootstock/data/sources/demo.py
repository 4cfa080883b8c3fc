"""The embedded collections: generated pictures in the official archive layouts, so that real readers read them.

Equal seeds give equal bytes: tar and gzip headers hold no time, owner or name, deflate blocks are stored, and the
MATLAB header's date is a fixed text.
"""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from scipy.io import savemat
from tqdm import tqdm

from rootstock import rng
from rootstock.config.fetch import Demo as DemoConfig
from rootstock.config.fetch import Official
from rootstock.data.sources import flowers102, ilsvrc2012
from rootstock.data.sources.drawn_flowers import FLOWERS, draw_flower
from rootstock.data.sources.drawn_shapes import FIGURES, FILLING, draw_shape
from rootstock.data.sources.record import Record
from rootstock.data.sums import sha256
from rootstock.schema.contract import ContractError, atomic, read_json, write_json

GENERATOR_VERSION = 1  # raise it when any pixel changes: old archives are then made again
SHORT_SIDE = 48  # px; the smallest at which a person tells all classes apart
MAX_LONG_SIDE = 60  # px; pictures are not square, so that cropping matters
SOURCE_TRAIN_PER_CLASS = 100
SOURCE_VAL_PER_CLASS = 20  # the official validation set, which is our test
TARGET_PER_CLASS = {"trnid": 10, "valid": 10, "tstid": 40}  # 10 + 10 as in Flowers-102
JPEG_QUALITY = 90
RECORD = "demo.json"


class Kind(NamedTuple):
    """A synset of the source's development kit."""

    number: int  # ILSVRC2012_ID
    wnid: str
    words: str
    children: list[int]
    height: int
    num_train_images: int


class Demo:
    """Generated images, deterministic from `config.seed`, written to `own` and read by the official layout's class.

    Args:
        config: layout and seed.
        roots: not searched: a generated archive never gives way to a real one of the same name.
        own: the folder the archives are written to.
    """

    def __init__(self, *, config: DemoConfig, roots: Sequence[Path], own: Path):
        self.config = config
        self.own = own
        self.ignored: dict[str, int] = {}
        official = Official(collection=config.layout, checksums="off", sums={})
        reader = {"ilsvrc2012": ilsvrc2012.Ilsvrc2012, "flowers102": flowers102.Flowers102}[config.layout]
        self._reader = reader(config=official, roots=[own], own=own)

    def fetch(self, *, progress: bool, offline: bool = False) -> list[dict]:
        """Generate the archives unless they lie here unchanged; nothing is downloaded.

        Returns:
            A row each file: name, num_bytes, sha256.

        Raises:
            OSError: the folder cannot be written, or the disk is full; nothing half-written stays.
        """
        if not self._up_to_date():
            self._generate(progress=progress)
        return self._reader.fetch(progress=progress, offline=True)

    def check(self, recorded: Sequence[dict]) -> list[str]:
        """Compare what lies here with the rows that `fetch` gave; one sentence a difference."""
        return self._reader.check(recorded)

    def records(self, *, split_seed: int, val_fraction: float | None) -> Iterator[Record]:
        """Yield the images as the official layout's class does."""
        return self._reader.records(split_seed=split_seed, val_fraction=val_fraction)

    def class_names(self) -> list[str]:
        """The names of figures or flowers; the index is the label."""
        return list(FLOWERS) if self.config.layout == "flowers102" else self._reader.class_names()

    def path(self, archive: str) -> Path:
        """Where an archive named in the manifest lies here."""
        return self._reader.path(archive)

    def _facts(self) -> dict:
        return {"generator_version": GENERATOR_VERSION, "layout": self.config.layout, "seed": self.config.seed}

    def _up_to_date(self) -> bool:
        """Whether the archives are here, from this generator and seed, and byte for byte what it wrote."""
        try:
            recorded = read_json(self.own / RECORD)
        except (FileNotFoundError, ContractError):
            return False
        if not isinstance(recorded, dict) or not isinstance(recorded.get("sha256"), dict):
            return False
        sums = recorded.pop("sha256")
        names = {file.name for file in self._files()}
        return (
            recorded == self._facts()
            and set(sums) == names
            and all((self.own / name).is_file() for name in names)
            and all(sha256(self.own / name, cache=self.own) == sums[name] for name in names)
        )

    def _files(self) -> tuple:
        if self.config.layout == "ilsvrc2012":
            return (ilsvrc2012.TRAIN, ilsvrc2012.VAL, ilsvrc2012.DEVKIT)
        return (flowers102.IMAGES, flowers102.LABELS, flowers102.SPLITS)

    def _generate(self, *, progress: bool) -> None:
        (self.own / RECORD).unlink(missing_ok=True)  # written last, so that it vouches for whole archives only
        write = write_source if self.config.layout == "ilsvrc2012" else write_target
        write(self.own, seed=self.config.seed, progress=progress)
        sums = {file.name: sha256(self.own / file.name, cache=None) for file in self._files()}
        write_json(self.own / RECORD, {**self._facts(), "sha256": sums})


def picture(*, layout: str, seed: int, name: str, split: str, index: int) -> np.ndarray:
    """Draw one picture, a function of its arguments alone.

    Args:
        layout: ilsvrc2012 (a class of `FIGURES`) or flowers102 (a class of `FLOWERS`).
        seed: of the collection.
        name: the class.
        split: train or val for the source; trnid, valid or tstid for the target.
        index: counts from 0 in the class and split.

    Returns:
        uint8 (H, W, 3) RGB, the short side SHORT_SIDE px, the long one up to MAX_LONG_SIDE.
    """
    draws = rng.stream("demo", GENERATOR_VERSION, layout, seed, name, split, index)
    long_side = int(draws.integers(SHORT_SIDE, MAX_LONG_SIDE + 1))
    upright = bool(draws.integers(2))
    height, width = (long_side, SHORT_SIDE) if upright else (SHORT_SIDE, long_side)
    draw = draw_shape if layout == "ilsvrc2012" else draw_flower
    return draw(draws, name, height=height, width=width)


def write_source(folder: Path, *, seed: int, progress: bool) -> None:
    """Write ILSVRC2012's three archives: nested training tars, validation tar, development kit."""
    kinds = _kinds()
    classes = [kind for kind in kinds if not kind.children]
    order = rng.stream("demo", "validation order", seed).permutation(len(classes) * SOURCE_VAL_PER_CLASS)
    shown = [(classes[i % len(classes)], i // len(classes)) for i in order.tolist()]
    num_images = len(classes) * SOURCE_TRAIN_PER_CLASS + len(shown)

    with tqdm(total=num_images, desc="drawing shapes", leave=False, disable=None if progress else True) as bar:

        def jpeg(kind: Kind, split: str, index: int) -> bytes:
            bar.update()
            return _jpeg(picture(layout="ilsvrc2012", seed=seed, name=kind.words, split=split, index=index))

        with atomic(folder / ilsvrc2012.TRAIN.name) as path:
            tars = (
                (
                    f"{kind.wnid}.tar",
                    _tar_bytes(
                        (f"{kind.wnid}_{i + 1}.JPEG", jpeg(kind, "train", i)) for i in range(SOURCE_TRAIN_PER_CLASS)
                    ),
                )
                for kind in classes
            )
            _write_tar(path, tars)
        with atomic(folder / ilsvrc2012.VAL.name) as path:
            images = enumerate(shown, start=1)
            _write_tar(path, ((f"ILSVRC2012_val_{n:08d}.JPEG", jpeg(kind, "val", i)) for n, (kind, i) in images))
    truth = "".join(f"{kind.number}\n" for kind, _ in shown)
    with atomic(folder / ilsvrc2012.DEVKIT.name) as path:
        inside = "ILSVRC2012_devkit_t12/"
        kit = [(inside + ilsvrc2012.META, _meta(kinds)), (inside + ilsvrc2012.TRUTH, truth.encode())]
        path.write_bytes(_gzip_stored(_tar_bytes(kit)))


def write_target(folder: Path, *, seed: int, progress: bool) -> None:
    """Write Flowers-102's three files: 102flowers.tgz, imagelabels.mat, setid.mat."""
    wanted = [
        (label, split, index)
        for label in range(len(FLOWERS))
        for split, count in TARGET_PER_CLASS.items()
        for index in range(count)
    ]
    order = rng.stream("demo", "image order", seed).permutation(len(wanted))
    wanted = [
        wanted[i] for i in order.tolist()
    ]  # as in the real collection, an image's number says nothing of its split
    names = list(FLOWERS)

    def images() -> Iterator[tuple[str, bytes]]:
        bar = tqdm(wanted, desc="drawing flowers", leave=False, disable=None if progress else True)
        for number, (label, split, index) in enumerate(bar, start=1):
            pixels = picture(layout="flowers102", seed=seed, name=names[label], split=split, index=index)
            yield f"jpg/image_{number:05d}.jpg", _jpeg(pixels)

    with atomic(folder / flowers102.IMAGES.name) as path:
        path.write_bytes(_gzip_stored(_tar_bytes(images())))
    with atomic(folder / flowers102.LABELS.name) as path:
        path.write_bytes(_mat({"labels": np.array([[label + 1 for label, _, _ in wanted]], np.uint8)}))
    with atomic(folder / flowers102.SPLITS.name) as path:
        numbers = {
            split: np.array([[n for n, (_, own, _) in enumerate(wanted, start=1) if own == split]], np.uint16)
            for split in TARGET_PER_CLASS
        }
        path.write_bytes(_mat(numbers))


def _kinds() -> list[Kind]:
    """The classes, then the inner synsets, which hold no images; numbers run across wnids, as in the official kit."""
    names = list(FIGURES)
    numbers = {name: 1 + 7 * label % len(names) for label, name in enumerate(names)}
    assert len(set(numbers.values())) == len(names), "7 must not divide the number of classes"
    classes = [Kind(numbers[n], f"n9{label:07d}", n, [], 0, SOURCE_TRAIN_PER_CLASS) for label, n in enumerate(names)]
    classes_by_number = sorted(classes)
    first = len(names) + 1
    patterns = [kind.number for kind in classes_by_number if kind.words in FILLING]
    figures = [kind.number for kind in classes_by_number if kind.words not in FILLING]
    inner = [
        Kind(first, "n99000000", "figure", figures, 1, 0),
        Kind(first + 1, "n99000001", "pattern", patterns, 1, 0),
        Kind(first + 2, "n99000002", "structure", [first, first + 1], 2, 0),
    ]
    return [*classes, *inner]


def _meta(kinds: list[Kind]) -> bytes:
    """The struct array `synsets` as in the official meta.mat, in the order of ILSVRC2012_ID."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss"]
    fields += ["num_children", "children", "wordnet_height", "num_train_images"]
    synsets = np.empty((len(kinds), 1), dtype=[(field, object) for field in fields])
    for row, kind in enumerate(sorted(kinds)):
        children = np.array([kind.children], np.float64) if kind.children else np.empty((0, 0))
        gloss = f"a generated picture of: {kind.words}"
        numbers = (len(kind.children), children, kind.height, kind.num_train_images)
        synsets[row, 0] = (kind.number, kind.wnid, kind.words, gloss, *numbers)
    return _mat({"synsets": synsets})


def _mat(variables: dict[str, np.ndarray]) -> bytes:
    """A MATLAB 5 file; its first 116 bytes are free text, where scipy writes the time."""
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=False)
    text = f"MATLAB 5.0 MAT-file, generated by rootstock's demo collection, version {GENERATOR_VERSION}"
    return text.ljust(116).encode() + buffer.getvalue()[116:]


def _jpeg(image_HWC: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image_HWC), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444", fastdct=False
    )


def _write_tar(path: Path, files: Iterator[tuple[str, bytes]]) -> None:
    with open(path, "wb") as stream:
        _tar(stream, files)


def _tar_bytes(files: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    _tar(buffer, files)
    return buffer.getvalue()


def _tar(stream: io.IOBase, files: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)  # mtime 0, owner 0, mode 0644
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _gzip_stored(data: bytes) -> bytes:
    """Gzip without compression: JPEGs do not shrink, and compressed bytes would differ from one zlib to another."""
    blocks = [b"\x1f\x8b\x08\x00" + b"\x00" * 4 + b"\x00\xff"]  # no time, no name, unknown system
    for start in range(0, max(1, len(data)), 65535):
        block = data[start : start + 65535]
        last = start + 65535 >= len(data)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(blocks) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
