"""A person's own folder: two layouts, seeded splits, keys, and everything that is not one of the two layouts."""

import hashlib
import os
import random
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rootstock.config.fetch import Fetch
from rootstock.config.fetch import Folder as Config
from rootstock.data import manifest, shards
from rootstock.data.archives import ArchiveError
from rootstock.data.sources.folder import Folder, key_of, split_by_place
from rootstock.data.sources.open import open_source
from rootstock.data.tar_writer import header
from rootstock.schema import source as source_schema
from rootstock.schema.contract import read_table
from rootstock.schema.manifest import MANIFEST, REJECTS
from rootstock.schema.names import KEY


def make(root, names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"picture {name}".encode())
    return root


def source(tmp_path, *, path=None, val_fraction=0.2, test_fraction=0.2) -> Folder:
    config = Config(
        collection="folder",
        path=str(path or tmp_path / "images"),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    return Folder(config=config, roots=[], own=tmp_path / "own")


def records(folder, split_seed=0):
    return list(folder.records(split_seed=split_seed, val_fraction=None))


def save(path, number, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([number, *path.parent.name.encode()]).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind)


def build(folder, tmp_path):
    return manifest.build(
        folder.records(split_seed=0, val_fraction=None),
        locate=folder.path, class_names=folder.class_names(), collection="folder",
        backend="simplejpeg", max_pixels=10**6, split_seed=0, gate_fraction=0.5, max_reject_fraction=0.5,
        drop_duplicates="none", near_radius=0, duplicates=tmp_path / "duplicates.parquet",
        manifest=tmp_path / "m.parquet", rejects=tmp_path / "r.parquet", workers=1,
    )  # fmt: skip


TEN = [f"{name}/{number}.jpg" for name in ("rose", "aster") for number in range(10)]
GIVEN = [
    f"{split}/{name}/{number}.png"
    for split in ("train", "val", "test")
    for name in ("rose", "aster")
    for number in (1, 2)
]


def test_given_splits_are_kept(tmp_path):
    make(tmp_path / "images", GIVEN)
    found = records(source(tmp_path))
    assert [record.key for record in found[:3]] == ["train/aster/1", "train/aster/2", "train/rose/1"]
    assert all(record.key.startswith(f"{record.split}/") for record in found)
    assert Counter((record.split, record.label) for record in found) == {
        (split, label): 2 for split in ("train", "val", "test") for label in (0, 1)
    }
    assert source(tmp_path).class_names() == ["aster", "rose"]


def test_each_image_is_an_archive_of_its_own(tmp_path):
    make(tmp_path / "images", TEN)
    folder = source(tmp_path)
    for record in records(folder):
        data = folder.path(record.archive).read_bytes()
        assert (record.offset, record.num_bytes) == (0, len(data))
        assert data == f"picture {record.archive}".encode()


def test_fetch_lists_every_image_with_its_sum_and_copies_nothing(tmp_path):
    root = make(tmp_path / "images", TEN)
    rows = source(tmp_path).fetch(progress=False)
    assert rows == [
        {"name": name, "num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name in sorted(TEN)
        for data in [(root / name).read_bytes()]
    ]
    source_schema.write(tmp_path / "source.json", collection="folder", verified="off", files=rows)
    assert {path.name for path in (tmp_path / "own").glob("*")} <= {".sums.json"}


def test_check_names_what_is_missing_changed_or_new(tmp_path):
    root = make(tmp_path / "images", TEN)
    folder = source(tmp_path)
    rows = folder.fetch(progress=False)
    assert folder.check(rows) == []
    (root / "rose/1.jpg").unlink()
    (root / "rose/2.jpg").write_bytes(b"short")
    (root / "rose/3.jpg").write_bytes(b"PICTURE rose/3.jpg")
    (root / "rose/new.jpg").write_bytes(b"1")
    differences = folder.check(rows)
    assert differences[:2] == ["rose/1.jpg: missing", f"{root}/rose/2.jpg: found 5 bytes, wanted 18"]
    assert differences[2].startswith(f"{root}/rose/3.jpg: found sha256 ")
    assert differences[3:] == ["rose/new.jpg: a new file"]


def test_the_split_is_seeded_and_complete(tmp_path):
    make(tmp_path / "images", TEN)
    folder = source(tmp_path)
    found = records(folder)
    assert {(record.split, record.label) for record in found} == {
        (s, n) for s in ("train", "val", "test") for n in (0, 1)
    }
    assert found == records(folder)
    assert any(records(folder, split_seed=seed) != found for seed in range(1, 4))


def test_the_split_is_pinned_and_differs_between_classes_of_one_size(tmp_path):
    make(tmp_path / "images", TEN)
    val = [record.key for record in records(source(tmp_path), split_seed=1) if record.split == "val"]
    assert val == ["aster/3", "rose/4", "rose/8"]  # a change here moves every person's images between splits
    assert {key[-1] for key in val if "aster" in key} != {key[-1] for key in val if "rose" in key}


def test_no_image_changes_its_split_when_images_and_classes_arrive(tmp_path):
    root = make(tmp_path / "images", TEN)
    before = {record.key: record.split for record in records(source(tmp_path))}
    make(root, [f"lily/{number}.jpg" for number in range(5)])
    make(root, [f"rose/{number}0.jpg" for number in range(10)])
    (root / "rose/3.jpg").write_bytes(b"another picture")
    after = {record.key: record.split for record in records(source(tmp_path))}
    assert len(after) == 35
    assert before.items() <= after.items()


def test_the_fractions_hold_within_the_spread_of_independent_draws(tmp_path):
    count, val, test = 2000, 0.1, 0.25
    make(tmp_path / "images", [f"{name}/{number}.jpg" for name in "ab" for number in range(count // 2)])
    found = Counter(r.split for r in records(source(tmp_path, val_fraction=val, test_fraction=test)))
    for split, fraction in {"val": val, "test": test, "train": 1 - val - test}.items():
        assert abs(found[split] - fraction * count) < 4 * (count * fraction * (1 - fraction)) ** 0.5


PLACES = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=12, unique=True)
FRACTIONS = {"val_fraction": st.floats(0.01, 0.49), "test_fraction": st.floats(0.01, 0.49)}


@settings(max_examples=200, deadline=None)
@given(places=PLACES, order=st.randoms(use_true_random=False), **FRACTIONS)
@example(places=[0.5, 0.6, 0.7], order=random.Random(1), val_fraction=0.1, test_fraction=0.1)  # all train by place
@example(places=[0.1, 0.2, 0.3], order=random.Random(1), val_fraction=0.4, test_fraction=0.1)  # all val
@example(places=[0.1, 0.2, 0.4], order=random.Random(1), val_fraction=0.01, test_fraction=0.49)  # all test
def test_every_split_has_the_class_and_the_order_of_files_is_nothing(places, order, val_fraction, test_fraction):
    fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    splits = split_by_place(places, **fractions)
    assert set(splits) == {"train", "val", "test"}
    moved = [1 for place, split in zip(places, splits, strict=True) if split != own_split(place, **fractions)]
    assert len(moved) == 3 - len({own_split(place, **fractions) for place in places}), "as few as can be"
    shuffled = order.sample(places, len(places))
    assert dict(zip(shuffled, split_by_place(shuffled, **fractions), strict=True)) == dict(
        zip(places, splits, strict=True)
    )


@settings(max_examples=300, deadline=None)
@given(places=PLACES, more=PLACES, **FRACTIONS)
@example(places=[0.0, 0.5, 0.25], more=[1.0], val_fraction=0.375, test_fraction=0.125)  # train's is nearer than val's
@example(places=[0.05, 0.15, 0.5], more=[0.04, 0.16, 0.6], val_fraction=0.1, test_fraction=0.1)
def test_new_images_move_no_image_of_a_class_with_its_own_in_each_split(places, more, val_fraction, test_fraction):
    fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    more = [place for place in more if place not in places]
    before = split_by_place(places, **fractions)
    after = split_by_place([*places, *more], **fractions)[: len(places)]
    own = {own_split(place, **fractions) for place in places}
    if len(own) == 3:
        assert after == before
    if "train" in own:  # also in smaller classes: what a champion learned from never becomes what it is judged on
        assert not [1 for b, a in zip(before, after, strict=True) if b == "train" and a != "train"]


def own_split(place: float, *, val_fraction: float, test_fraction: float) -> str:
    return "val" if place < val_fraction else "test" if place < val_fraction + test_fraction else "train"


def test_a_small_class_lends_its_nearest_images_and_takes_them_back():
    fractions = {"val_fraction": 0.2, "test_fraction": 0.2}
    assert split_by_place([0.5, 0.45, 0.9], **fractions) == ["test", "val", "train"]
    assert split_by_place([0.5, 0.45, 0.9, 0.1], **fractions) == ["train", "test", "train", "val"]
    assert split_by_place([0.5, 0.45, 0.9, 0.1, 0.3], **fractions) == ["train", "train", "train", "val", "test"]


def test_other_files_are_counted_and_suffixes_ignore_case(tmp_path):
    names = [*TEN, "rose/a.JPG", "rose/b.JPEG", "rose/c.WebP", "rose/d.Png"]
    others = ["rose/notes.txt", "rose/.hidden.jpg", "LICENCE.TXT", ".git/x.jpg", "rose/README", "labels.csv"]
    make(tmp_path / "images", [*names, *others])
    folder = source(tmp_path)
    folder.fetch(progress=False)
    assert len(records(folder)) == len(names)
    assert folder.ignored == {".txt": 2, "hidden": 2, "no suffix": 1, ".csv": 1}


def test_images_that_we_do_not_read_are_records_for_the_manifest_to_judge(tmp_path):
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    root = tmp_path / "images"
    for name in ("rose", "aster"):
        for number in range(3):
            save(root / name / f"{number}.jpg", number)
    save(root / "rose/old.jfif", 7, "JPEG")
    save(root / "rose/scan.TIF", 8, "TIFF")
    save(root / "rose/moving.gif", 9, "GIF")
    (root / "rose/1.heic").write_bytes(heif)  # what a telephone leaves beside its 1.jpg
    folder = source(tmp_path)
    rows = folder.fetch(progress=False)
    assert {"rose/old.jfif", "rose/scan.TIF", "rose/moving.gif", "rose/1.heic"} <= {row["name"] for row in rows}
    build(folder, tmp_path)
    accepted = read_table(tmp_path / "m.parquet", MANIFEST)
    assert "rose/old" in set(accepted["key"])
    refused = read_table(tmp_path / "r.parquet", REJECTS)
    assert sorted(refused["archive"]) == ["rose/1.heic", "rose/moving.gif", "rose/scan.TIF"]
    assert set(refused["reason"]) == {"neither JPEG, PNG nor WebP"}


def test_zero_byte_files_are_records_for_the_manifest_to_reject(tmp_path):
    (make(tmp_path / "images", TEN) / "rose/empty.jpg").write_bytes(b"")
    assert [r.num_bytes for r in records(source(tmp_path)) if r.key == "rose/empty"] == [0]


# ---------------------------------------------------------------------------------------------------------------- keys


def test_keys_known_answers():
    assert key_of("rose/a.jpg") == "rose/a"
    assert key_of("train/rose/A-1_b.jpeg") == "train/rose/A-1_b"
    digits = hashlib.sha256("rose/a.b é".encode()).hexdigest()[:8]
    assert key_of("rose/a.b é.jpg") == f"rose/a_b__-{digits}"
    assert key_of(f"rose/{'x' * 80}.jpg") == f"rose/{'x' * 80}"
    digits = hashlib.sha256(f"rose/{'x' * 81}".encode()).hexdigest()[:8]
    assert key_of(f"rose/{'x' * 81}.jpg") == f"rose/{'x' * 80}-{digits}"
    digits = hashlib.sha256(b"rose/a.heic").hexdigest()[:8]
    assert key_of("rose/a.heic") == f"rose/a_heic-{digits}"


NAME = st.text(st.sampled_from("aB9-_. é花\u202f"), min_size=1, max_size=6).filter(
    lambda name: not name.startswith(".")
)


@settings(max_examples=100, deadline=None)
@given(names=st.sets(st.tuples(NAME, NAME), max_size=8))
def test_keys_are_well_formed_and_unique(names):
    keys = [key_of(f"{folder}/{stem}.jpg") for folder, stem in names]
    assert len(set(keys)) == len(names)
    for key in keys:
        assert re.fullmatch(KEY, key)


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(st.text("aé ", min_size=1, max_size=255), min_size=2, max_size=2),
    split=st.sampled_from(["", "train/"]),
    suffix=st.sampled_from([".jpg", ".webp", ".heic"]),
)
@example(parts=["c" * 255, "i" * 251], split="train/", suffix=".webp")
@example(parts=["c", "i" * 97], split="", suffix=".jpg")
def test_keys_of_any_length_fit_a_tar(parts, split, suffix):
    key = key_of(f"{split}{'/'.join(parts)}{suffix}")
    assert re.fullmatch(KEY, key)
    for extension in ("cls", "jpg", "png", "webp"):
        header(f"{key}.{extension}", 1)  # raises where the name does not fit


def test_images_of_long_names_come_through_to_the_shards(tmp_path):
    root = tmp_path / "images"
    long = "a photograph of a rose " * 10
    for name in ("rose", "w" * 240):
        for number in range(4):
            save(root / name / f"{long}{number}.jpg", number)
    folder = source(tmp_path)
    folder.fetch(progress=False)
    build(folder, tmp_path)
    shards.write(
        tmp_path / "m.parquet", locate=folder.path, folder=tmp_path / "shards",
        short_side=None, quality=90, max_shard_bytes=10**6, seed=0, workers=1,
    )  # fmt: skip
    found = shards.ShardSet(tmp_path / "shards", verify="always")
    assert sorted(found.keys) == sorted(record.key for record in records(folder))
    assert len(set(found.keys)) == 8
    by_key = {record.key: record.archive for record in records(folder)}
    for position, key in enumerate(found.keys):
        assert found.read(position) == (root / by_key[key]).read_bytes()
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path) as archive:
            assert {name.rpartition(".")[0] for name in archive.getnames()} <= set(by_key)


@pytest.mark.parametrize("stem", ["a", "a b"])
def test_two_images_of_one_key_are_named(tmp_path, stem):
    make(tmp_path / "images", [*TEN, f"rose/{stem}.jpg", f"rose/{stem}.png"])
    key = key_of(f"rose/{stem}.jpg")
    assert error(tmp_path) == f"…/images: duplicate key {key!r}: rose/{stem}.jpg and rose/{stem}.png; rename one"


# --------------------------------------------------------------------------------------------------------------- paths


def test_home_and_relative_paths_are_resolved(tmp_path, monkeypatch):
    make(tmp_path / "images", TEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert records(source(tmp_path, path="~/images")) == records(source(tmp_path, path="images"))


def test_open_source_opens_a_folder(tmp_path):
    section = {"collection": "folder", "path": "x", "val_fraction": 0.1, "test_fraction": 0.1}
    assert isinstance(open_source(Fetch.model_validate(section), roots=[], own=tmp_path), Folder)


# -------------------------------------------------------------------------------------------------------------- errors


def error(tmp_path) -> str:
    """The message of fetch, which is also that of records: nothing wrong is found late."""
    messages = []
    for attempt in (lambda: source(tmp_path).fetch(progress=False), lambda: records(source(tmp_path))):
        with pytest.raises(ArchiveError) as caught:
            attempt()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0].replace(str(tmp_path), "…")


def test_a_missing_folder(tmp_path):
    assert error(tmp_path) == "folder: path '…/images': found nothing at …/images, wanted a folder of images"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "images").write_text("x")
    assert error(tmp_path) == "folder: path '…/images': found a file at …/images, wanted a folder of images"


LAYOUT = "wanted <class>/<image> or {train,val,test}/<class>/<image>"
ALL_OR_NONE = "wanted all of train, val and test, or none of them (then each class is split at random)"
LACKS = "has the class 'lily', which train lacks; wanted one of train's 2 classes"
NONE = "holds no images, wanted at least one of .jpg, .jpeg, .jfif, .png, .webp"
WITHOUT_VAL = [name for name in GIVEN if not name.startswith("val")]
WRONG = {
    "one split": (["train/rose/1.jpg", "train/lily/1.jpg"], f"found train without val, test; {ALL_OR_NONE}"),
    "no val": (WITHOUT_VAL, f"found train, test without val; {ALL_OR_NONE}"),
    "splits and classes": ([*GIVEN, "lily/1.jpg"], f"found train, val, test beside lily; {LAYOUT}, not both"),
    "class only in val": ([*GIVEN, "val/lily/1.jpg"], f"val {LACKS}"),
    "class only in test": ([*GIVEN, "test/lily/1.jpg"], f"test {LACKS}"),
    "image in no class": ([*TEN, "1.jpg"], f"1.jpg lies in no class folder; {LAYOUT}"),
    "image in a split": ([*GIVEN, "val/1.jpg"], f"val/1.jpg lies in no class folder; {LAYOUT}"),
    "deeper": ([*TEN, "rose/red/1.jpg"], f"rose/red is a folder inside a class; {LAYOUT}"),
    "empty class": ([*TEN, "lily/notes.txt"], f"empty class: lily {NONE}"),
    "empty class in a split": ([*GIVEN, "val/lily/.keep"], f"empty class: val/lily {NONE}"),
    "one class": (TEN[:10], f"found 1 classes, wanted at least 2; {LAYOUT}"),
    "no class": (["notes.txt"], f"found 0 classes, wanted at least 2; {LAYOUT}"),
    "small class": (
        [*TEN, "lily/1.jpg", "lily/2.jpg"],
        "class 'lily': found 2 images, wanted at least 3: one each for train, val and test",
    ),
    "control character": (
        [*TEN, "rose/a\nb.jpg"],
        "'rose/a\\nb.jpg' has a name that cannot be written as text; rename it",
    ),
}


@pytest.mark.parametrize(("names", "message"), WRONG.values(), ids=WRONG)
def test_other_layouts_are_refused_by_fetch_and_by_records(tmp_path, names, message):
    make(tmp_path / "images", names)
    assert error(tmp_path) == f"…/images: {message}"


def test_links_out_of_the_folder_are_refused_and_links_inside_are_read(tmp_path):
    root = make(tmp_path / "images", TEN)
    os.symlink("1.jpg", root / "rose/inside.jpg")
    assert len(records(source(tmp_path))) == len(TEN) + 1
    for name, target in (
        ("out", "/etc/passwd"),
        ("broken", "nowhere.jpg"),
        ("loop", "loop.jpg"),
        ("up", "../../secret.jpg"),
    ):
        make(tmp_path, ["secret.jpg"])
        link = root / f"rose/{name}.jpg"
        os.symlink(target, link)
        wanted = f"…/images: rose/{name}.jpg is a link out of the folder or to nothing; not followed"
        assert error(tmp_path) == wanted
        link.unlink()
    os.symlink(tmp_path, root / "linked")
    assert error(tmp_path) == "…/images: linked is a link out of the folder or to nothing; not followed"


def test_a_pipe_named_like_an_image_is_refused_without_reading_it(tmp_path):
    root = make(tmp_path / "images", TEN)
    os.mkfifo(root / "rose/pipe.jpg")
    assert error(tmp_path) == "…/images: rose/pipe.jpg is not a regular file"


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    root = make(tmp_path / "images", TEN)
    (root / os.fsdecode(b"rose/\xff.jpg")).write_bytes(b"1")
    assert error(tmp_path) == "…/images: 'rose/\\udcff.jpg' has a name that cannot be written as text; rename it"
