"""Every image is accepted or listed with its reason; whatever is wrong with a collection is said before training."""

import io
import os
import resource
import signal
import struct

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rootstock.data import manifest
from rootstock.data.archives import ArchiveError
from rootstock.data.manifest import ManifestError, is_gate
from rootstock.data.sources.record import Record
from rootstock.schema.contract import read_facts, read_table
from rootstock.schema.duplicates import DUPLICATES
from rootstock.schema.manifest import MANIFEST, REJECTS


def image(number: int = 0, kind: str = "JPEG", size: tuple[int, int] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Planted:
    """Images one after the other in one archive file."""

    def __init__(self, folder, contents: list[bytes], **columns):
        self.folder = folder
        self.archive = folder / "images.bin"
        self.archive.write_bytes(b"".join(contents))
        self.records, offset = [], 0
        for number, data in enumerate(contents):
            record = Record(f"class/{number:03d}", "train", number % 2, "images.bin", offset, len(data))
            changes = {name: values[number] for name, values in columns.items()}
            self.records.append(record._replace(**changes))
            offset += len(data)

    def build(self, **options) -> dict:
        settings = {
            "locate": lambda name: self.folder / name,
            "class_names": ["a", "b"],
            "collection": "planted",
            "backend": "simplejpeg",
            "max_pixels": 10_000,
            "split_seed": 0,
            "gate_fraction": 0.5,
            "max_reject_fraction": 0.5,
            "drop_duplicates": "none",
            "near_radius": 0,
            "manifest": self.folder / "m.parquet",
            "rejects": self.folder / "r.parquet",
            "duplicates": self.folder / "d.parquet",
            "workers": 1,
            "chunk_size": 3,
        }
        return manifest.build(self.records, **settings | options)

    @property
    def accepted(self) -> pd.DataFrame:
        return read_table(self.folder / "m.parquet", MANIFEST)

    @property
    def twins(self) -> pd.DataFrame:
        return read_table(self.folder / "d.parquet", DUPLICATES)

    @property
    def refused(self) -> pd.DataFrame:
        return read_table(self.folder / "r.parquet", REJECTS)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def plant(tmp_path):
    return lambda contents, **columns: Planted(tmp_path, contents, **columns)


def bad_images() -> dict[str, tuple[bytes, str]]:
    good = image()
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "PNG")
    animated = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "WEBP", save_all=True, append_images=frames[1:])
    huge = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0, 0)
    return {
        "truncated": (good[: len(good) // 2], "broken JPEG"),
        "text": (b"hello", "neither JPEG, PNG nor WebP"),
        "empty": (b"", "empty file"),
        "deep": (deep.getvalue(), "16-bit PNG"),
        "animated": (animated.getvalue(), "animated webp of 2 frames"),
        "huge": (huge, ""),  # its header's sum is wrong as well: whichever is said first
    }


def test_bad_images_are_listed_with_their_reasons_and_good_ones_kept(plant):
    bad = bad_images()
    good = [image(number, kind) for number, kind in enumerate(("JPEG", "PNG", "WEBP", "JPEG"))]
    planted = plant([*good, *(data for data, _ in bad.values())])
    facts = planted.build(max_reject_fraction=0.7)
    assert planted.accepted["format"].tolist() == ["jpeg", "png", "webp", "jpeg"]
    assert planted.accepted["key"].tolist() == [f"class/{number:03d}" for number in range(4)]
    assert (planted.accepted["width"] == 9).all()
    assert (planted.accepted["height"] == 7).all()
    for reason, (_, wanted) in zip(planted.refused["reason"], bad.values(), strict=True):
        assert reason.startswith(wanted)
    assert facts["num_images"] == {"train": 4, "val": 0, "test": 0}
    assert facts["num_rejects"] == len(bad)
    assert read_facts(planted.folder / "m.parquet") == facts
    assert read_facts(planted.folder / "r.parquet") == {"collection": "planted", "num_rejects": len(bad)}


def test_a_rotated_image_has_the_size_it_is_seen_in(plant):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, "JPEG", exif=exif)
    planted = plant([buffer.getvalue(), image()])
    planted.build()
    assert planted.accepted[["width", "height"]].to_numpy().tolist() == [[7, 9], [9, 7]]


def test_any_number_of_workers_gives_the_same_bytes(plant):
    contents = [image(number) for number in range(14)]
    contents[4] = contents[11] = b"broken"
    contents[6] = contents[13] = contents[1]
    planted = plant(contents, split=["train"] * 13 + ["test"])
    found = []
    for workers, chunk_size in ((1, 3), (2, 3), (1, 3)):
        planted.build(workers=workers, chunk_size=chunk_size, drop_duplicates="identical")
        names = ("m.parquet", "r.parquet", "d.parquet")
        found.append([(planted.folder / name).read_bytes() for name in names])
    assert found[0] == found[1] == found[2]


# ----------------------------------------------------------------------------------------- what ends the stage, and how


def test_too_many_refused_images_fail_and_leave_their_list(plant):
    planted = plant([image(), image(1), image(2), b"x"])
    with pytest.raises(ManifestError) as caught:
        planted.build(max_reject_fraction=0.24)
    assert str(caught.value).splitlines() == [
        "1 of 4 images were refused, more than max_reject_fraction 0.24 allows:",
        "  images.bin: class/003: neither JPEG, PNG nor WebP",
        f"all of them, with their reasons, are in {planted.folder / 'r.parquet'}",
    ]
    assert planted.names() == ["images.bin", "r.parquet"]
    assert planted.refused["reason"].tolist() == ["neither JPEG, PNG nor WebP"]
    assert planted.build(max_reject_fraction=0.25)["num_rejects"] == 1


def test_the_first_five_of_many_refused_images_are_named_across_chunks(plant):
    planted = plant([image(), image(1), *[b"x", b""] * 4])
    with pytest.raises(ManifestError) as caught:
        planted.build()
    reasons = ["neither JPEG, PNG nor WebP", "empty file"] * 3
    named = [f"  images.bin: class/{n:03d}: {reason}" for n, reason in enumerate(reasons[:5], start=2)]
    assert str(caught.value).splitlines()[1:-1] == [*named, "  … and 3 more"]


def test_of_many_refused_images_five_are_told(plant):
    planted = plant([image(), *[b"x"] * 9])
    with pytest.raises(ManifestError) as caught:
        planted.build()
    assert len(str(caught.value).splitlines()) == 8
    assert str(caught.value).splitlines()[-2] == "  … and 4 more"


@pytest.mark.parametrize("second", [1, 5], ids=["in one chunk", "in another chunk"])
def test_a_doubled_key_is_named(plant, second):
    planted = plant([image(number) for number in range(6)])
    planted.records[second] = planted.records[second]._replace(key="class/000")
    with pytest.raises(ManifestError, match=r"duplicate key 'class/000' \(archive images\.bin, offset [0-9]+\)"):
        planted.build()
    assert planted.names() == ["images.bin"]


def test_a_key_may_not_be_reused_for_a_refused_image_either(plant):
    planted = plant([image(), image(1), b"x"], key=["a", "b", "a"])
    with pytest.raises(ManifestError, match="duplicate key 'a'"):
        planted.build()


@pytest.mark.parametrize(
    ("contents", "splits"),
    [
        ([image(), image(1), image(2)], ["train", "test", "train"]),  # class b has a test image alone
        ([image(), b"broken", image(2)], ["train", "train", "train"]),  # class b's only image is refused
    ],
)
def test_a_class_without_a_training_image_is_named(plant, contents, splits):
    planted = plant(contents, split=splits)
    with pytest.raises(ManifestError, match=r"class 'b' has no training image \(1 such classes\)"):
        planted.build()
    assert planted.names() == ["images.bin", "r.parquet"]


def test_a_collection_of_nothing_is_an_error(plant):
    with pytest.raises(ManifestError, match="the collection holds no images"):
        plant([]).build()


def test_an_archive_that_ends_too_early_is_no_bad_image(plant):
    planted = plant([image(), image(1)])
    os.truncate(planted.archive, planted.archive.stat().st_size - 5)
    with pytest.raises(ArchiveError, match=r"images\.bin"):
        planted.build()
    assert planted.names() == ["images.bin"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named_and_nothing_partial_stays(plant, workers):
    """No file may grow beyond 3000 bytes."""
    planted = plant([image(number) for number in range(40)])
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            planted.build(workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert str(planted.folder / "m.parquet") in "".join([str(caught.value), *caught.value.__notes__])
    assert planted.names() == ["images.bin"]


# ----------------------------------------------------------------------------------------------- duplicates and gates


def planted_twins(plant) -> Planted:
    same, contradicted = image(5), image(6)
    return plant(
        [same, image(1), same, same, image(2), contradicted, contradicted, contradicted, image(3), image(3)],
        split=["train", "train", "train", "test", "val", *["train"] * 5],
        label=[0, 1, 1, 0, 0, 1, 0, 1, 0, 0],
    )


def test_identical_images_of_two_splits_or_labels_are_listed_with_the_one_that_stands_first(plant):
    planted = planted_twins(plant)
    facts = planted.build()
    assert planted.twins["kind"].eq("identical").all()
    columns = ["key", "split", "label", "other_key", "other_split", "other_label"]
    assert planted.twins[columns].to_numpy().tolist() == [
        ["class/000", "train", 0, "class/003", "test", 0],
        ["class/002", "train", 1, "class/003", "test", 0],
        ["class/006", "train", 0, "class/005", "train", 1],
    ]
    assert read_facts(planted.folder / "d.parquet") == {
        "collection": "planted",
        "near_radius": 0,
        "num_dropped": 0,
        "num_images": 10,
        # class/007 as 005, class/009 as 008
        "same_place": {"identical": {"train": 2, "val": 0, "test": 0}, "near": {"train": 0, "val": 0, "test": 0}},
    }
    assert facts["num_images"] == {"train": 8, "val": 1, "test": 1}
    assert len(planted.accepted) == 10


def test_identical_images_are_dropped_from_train_alone_and_say_why(plant):
    planted = planted_twins(plant)
    facts = planted.build(drop_duplicates="identical", max_reject_fraction=0.0)
    assert planted.accepted["key"].tolist() == [f"class/{number:03d}" for number in (1, 3, 4, 8, 9)]
    assert planted.refused[["key", "reason"]].to_numpy().tolist() == [
        ["class/000", "duplicate: the same bytes as class/003 (test, class 'a')"],
        ["class/002", "duplicate: the same bytes as class/003 (test, class 'a')"],
        ["class/005", "duplicate: the same bytes as class/006 (train, class 'a')"],
        ["class/006", "duplicate: the same bytes as class/005 (train, class 'b')"],
        ["class/007", "duplicate: the same bytes as class/006 (train, class 'a')"],
    ]
    assert facts["num_images"] == {"train": 3, "val": 1, "test": 1}
    assert facts["num_rejects"] == 5
    assert read_facts(planted.folder / "d.parquet")["num_dropped"] == 5
    assert len(planted.twins) == 3, "what was found stays listed"


def test_held_out_images_are_never_dropped(plant):
    planted = plant([image(), image(1), image(2), image(2)], split=["train", "train", "val", "test"])
    planted.build(drop_duplicates="identical")
    assert len(planted.accepted) == 4
    assert planted.twins[["key", "other_key"]].to_numpy().tolist() == [["class/002", "class/003"]]


def test_a_class_of_nothing_but_dropped_images_is_named(plant):
    planted = plant([image(), image(1), image(1)], split=["train", "train", "test"])
    with pytest.raises(ManifestError, match="class 'b' has no training image"):
        planted.build(drop_duplicates="identical")
    assert planted.names() == ["images.bin", "r.parquet"]


def test_the_gate_is_a_fraction_of_val_and_stays_when_images_arrive(plant):
    contents = [image(number % 4) for number in range(60)]
    planted = plant(contents, split=["train"] * 2 + ["val"] * 58)
    planted.build()
    first = planted.accepted.set_index("key")["gate"]
    assert not first.iloc[:2].any()
    assert 15 < first.sum() < 45
    planted.records = planted.records[:2] + planted.records[10:]
    planted.build()
    second = planted.accepted.set_index("key")["gate"]
    assert second.equals(first[second.index])
    planted.build(gate_fraction=1.0)
    assert planted.accepted["gate"].sum() == 50


def test_the_gates_fraction_is_met():
    keys = [f"n{number:08d}" for number in range(20_000)]
    for fraction in (0.0, 0.3, 1.0):
        share = np.mean([is_gate(key, seed=1, fraction=fraction) for key in keys])
        assert share == pytest.approx(fraction, abs=0.015)
    assert [is_gate(key, seed=1, fraction=0.5) for key in keys] != [is_gate(key, seed=2, fraction=0.5) for key in keys]
