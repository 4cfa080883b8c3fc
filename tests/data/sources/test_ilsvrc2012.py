"""The three official archives are read in place; what does not belong together is refused."""

import gzip
import io
import tarfile
from collections import Counter

import numpy as np
import pytest
import scipy.io

from rootstock.config.fetch import Fetch, Official
from rootstock.data.archives import ArchiveError, pread
from rootstock.data.sources import ilsvrc2012
from rootstock.data.sources.ilsvrc2012 import Ilsvrc2012
from rootstock.data.sources.open import open_source

OFF = {"collection": "ilsvrc2012", "checksums": "off", "sums": {}}
# numbers run against the wnids, so that confusing them shows
SYNSETS = [
    (1, "n00000030", "crane", 0),
    (2, "n00000020", "kite", 0),
    (3, "n00000010", "crane", 0),
    (4, "n00000001", "bird", 3),
]
LABELS = {"n00000010": 0, "n00000020": 1, "n00000030": 2}
NUM_TRAIN = 10


def tar(files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def class_tar(wnid, count=NUM_TRAIN) -> bytes:
    return tar((f"{wnid}_{number}.JPEG", f"{wnid} {number}".encode()) for number in range(1, count + 1))


def meta(synsets) -> bytes:
    rows = np.empty((len(synsets), 1), dtype=[(field, object) for field in ilsvrc2012.FIELDS])
    for index, row in enumerate(synsets):
        rows[index, 0] = row
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": rows})
    return buffer.getvalue()


def devkit(synsets=SYNSETS, truth="3\n1\n2\n1\n", extra=()) -> bytes:
    inside = "ILSVRC2012_devkit_t12/"
    files = [
        (f"{inside}readme.txt", b"read me"),
        (inside + ilsvrc2012.META, meta(synsets)),
        (inside + ilsvrc2012.TRUTH, truth.encode()),
        *extra,
    ]
    return gzip.compress(tar(files), mtime=0)


def collection(folder, *, classes=None, val=None, kit=None):
    folder.mkdir(parents=True, exist_ok=True)
    if classes is None:
        classes = [(f"{wnid}.tar", class_tar(wnid)) for wnid in ("n00000020", "n00000010", "n00000030")]
    if val is None:
        val = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (2, 1, 3, 4)]
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(classes))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar((name, name.encode()) for name in val))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit() if kit is None else kit)
    return folder


def source(tmp_path, **config) -> Ilsvrc2012:
    return Ilsvrc2012(config=Official(**{**OFF, **config}), roots=[tmp_path / "roots"], own=tmp_path / "own")


def records(tmp_path, *, split_seed=0, val_fraction=0.2):
    return list(source(tmp_path).records(split_seed=split_seed, val_fraction=val_fraction))


def test_labels_follow_the_sorted_wnids_and_offsets_the_outer_file(tmp_path):
    collection(tmp_path / "roots")
    archives = source(tmp_path)
    found = records(tmp_path)
    train = [record for record in found if record.split != "test"]
    assert [record.key for record in train[:2]] == ["n00000020/n00000020_1", "n00000020/n00000020_2"]
    assert Counter(record.label for record in train) == {0: 10, 1: 10, 2: 10}
    for record in train:
        wnid, _, stem = record.key.partition("/")
        assert record.label == LABELS[wnid]
        data = pread(archives.path(record.archive), record.offset, record.num_bytes)
        assert data.decode() == stem.replace("_", " ")


def test_the_official_validation_set_is_test_with_labels_from_the_ground_truth(tmp_path):
    collection(tmp_path / "roots")
    archives = source(tmp_path)
    test = [record for record in records(tmp_path) if record.split == "test"]
    # line 1 says ILSVRC2012_ID 3 = n00000010 = label 0, and so on; the archive's order is 2, 1, 3, 4
    assert [(record.key[-1], record.label) for record in test] == [("2", 2), ("1", 0), ("3", 1), ("4", 2)]
    assert test[0].key == "val/ILSVRC2012_val_00000002"
    data = pread(archives.path(test[0].archive), test[0].offset, test[0].num_bytes)
    assert data == b"ILSVRC2012_val_00000002.JPEG"


def test_the_val_slice_is_balanced_seeded_and_blind_to_the_archives_order(tmp_path):
    collection(tmp_path / "roots")
    val = {record.key for record in records(tmp_path) if record.split == "val"}
    assert Counter(key.partition("/")[0] for key in val) == dict.fromkeys(LABELS, 2)
    assert val == {record.key for record in records(tmp_path) if record.split == "val"}
    others = [{r.key for r in records(tmp_path, split_seed=seed) if r.split == "val"} for seed in range(1, 6)]
    assert any(other != val for other in others)

    def reversed_tar(wnid):
        return tar((f"{wnid}_{number}.JPEG", f"{wnid} {number}".encode()) for number in range(NUM_TRAIN, 0, -1))

    collection(tmp_path / "roots", classes=[(f"{wnid}.tar", reversed_tar(wnid)) for wnid in LABELS])
    assert val == {record.key for record in records(tmp_path) if record.split == "val"}


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.01, 1), (0.5, 5), (0.9, 9)])
def test_the_val_slice_has_its_size(tmp_path, fraction, count):
    collection(tmp_path / "roots")
    found = records(tmp_path, val_fraction=fraction)
    assert sum(record.split == "val" for record in found) == 3 * count
    assert len({record.key for record in found}) == 34


def test_class_names_are_words_and_equal_words_are_told_apart(tmp_path):
    collection(tmp_path / "roots")
    assert source(tmp_path).class_names() == ["crane (n00000010)", "kite", "crane (n00000030)"]


def test_fetch_and_check_leave_the_archives_alone(tmp_path):
    folder = collection(tmp_path / "roots")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    archives = source(tmp_path)
    rows = archives.fetch(progress=False)
    assert [row["name"] for row in rows] == [
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_devkit_t12.tar.gz",
    ]
    assert archives.check(rows) == []
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    path = folder / "ILSVRC2012_img_val.tar"
    path.write_bytes(path.read_bytes().replace(b"val_00000001", b"val_00000009"))
    [difference] = archives.check(rows)
    assert difference.startswith(f"{path}: found sha256 ")


# -------------------------------------------------------------------------------------------------------------- errors


def test_missing_archives_name_files_sizes_sums_folders_and_the_registration(tmp_path):
    collection(tmp_path / "roots")
    (tmp_path / "roots" / "ILSVRC2012_img_train.tar").unlink()
    with pytest.raises(ArchiveError) as caught:
        source(tmp_path).fetch(progress=False)
    assert str(caught.value) == (
        "ilsvrc2012: 1 of 3 files are missing:\n"
        "  ILSVRC2012_img_train.tar  147897477120 bytes  md5 1d675b47d978889d74fa0da5fadfb00e\n"
        "They are free for research after a registration at https://image-net.org/download-images "
        "(ILSVRC2012: training images of tasks 1 & 2, validation images, development kit of tasks 1 & 2).\n"
        "Put them into one of these folders:\n"
        f"  {tmp_path}/roots\n  {tmp_path}/roots/ilsvrc2012\n  {tmp_path}/own"
    )


def test_official_sums_refuse_other_archives_by_their_size(tmp_path):
    folder = collection(tmp_path / "roots")
    num_bytes = (folder / "ILSVRC2012_img_train.tar").stat().st_size
    with pytest.raises(ArchiveError, match=rf"img_train\.tar: bytes: found {num_bytes}, wanted 147897477120"):
        source(tmp_path, checksums="official").fetch(progress=False)


ALL = [(f"{wnid}.tar", class_tar(wnid)) for wnid in LABELS]
VAL = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4)]
MISMATCHES = {
    "empty class": (
        {"classes": [*ALL[:2], ("n00000030.tar", tar([]))]},
        "ILSVRC2012_img_train.tar: empty class: n00000030.tar holds no images, wanted at least one",
    ),
    "class without a tar": ({"classes": ALL[:2]}, "empty class: 1 of 3 classes have no tar, the first n00000030.tar"),
    "unknown class": (
        {"classes": [*ALL, ("n00000099.tar", class_tar("n00000099"))]},
        "unknown class tar 'n00000099.tar': wanted one of the 3 in data/meta.mat",
    ),
    "inner synset": ({"classes": [*ALL, ("n00000001.tar", tar([]))]}, "unknown class tar 'n00000001.tar'"),
    "class twice": (
        {"classes": [*ALL, ("x/n00000010.tar", tar([]))]},
        "'x/n00000010.tar' and 'n00000010.tar' are the same",
    ),
    "no tar inside": ({"classes": [*ALL[:2], ("n00000030.tar", b"x" * 2000)]}, "is not a whole tar: "),
    "inner tar cut": ({"classes": [*ALL[:2], ("n00000030.tar", class_tar("n00000030")[:4000])]}, "is truncated"),
    "inner traversal": (
        {"classes": [*ALL[:2], ("n00000030.tar", tar([("../a.JPEG", b"1")]))]},
        "'../a.JPEG' has `..` in its name",
    ),
    "inner other file": (
        {"classes": [*ALL[:2], ("n00000030.tar", tar([("notes.txt", b"1")]))]},
        "n00000030.tar: found 'notes.txt', wanted <name>.JPEG only",
    ),
    "inner key twice": (
        {"classes": [*ALL[:2], ("n00000030.tar", tar([("a.JPEG", b"1"), ("x/a.JPEG", b"1")]))]},
        "duplicate key n00000030/a: 'x/a.JPEG'",
    ),
    "all of a class in val": (
        {"classes": [*ALL[:2], ("n00000030.tar", class_tar("n00000030", count=1))]},
        "n00000030.tar: 1 images, 1 of them for val (val_fraction 0.2): none left to train on",
    ),
    "too few truths": ({"kit": devkit(truth="1\n2\n3\n")}, "ground_truth.txt: found 3 labels, wanted 4, the images in"),
    "too many truths": ({"kit": devkit(truth="1\n2\n3\n1\n2\n")}, "found 5 labels, wanted 4"),
    "truth of an inner synset": (
        {"kit": devkit(truth="1\n4\n3\n1\n")},
        "line 2: found '4', wanted a class's ILSVRC2012_ID",
    ),
    "truth in words": ({"kit": devkit(truth="1\nkite\n3\n1\n")}, "line 2: found 'kite', wanted a class's"),
    "val image missing": (
        {"val": [*VAL[:3], "ILSVRC2012_val_00000009.JPEG"]},
        "image 4 is missing; wanted images 1 to 4",
    ),
    "val image twice": ({"val": [*VAL, "x/" + VAL[0]]}, "is image 1 again"),
    "val other file": ({"val": [*VAL, "x.JPEG"]}, "found 'x.JPEG', wanted ILSVRC2012_val_<8 digits>.JPEG only"),
    "wnid": ({"kit": devkit([(1, "cat", "cat", 0)])}, "WNID: found 'cat', wanted n and 8 digits"),
    "number twice": (
        {"kit": devkit([(1, "n00000010", "a", 0), (1, "n00000020", "b", 0)])},
        "ILSVRC2012_ID: found 1 2 times, wanted it once",
    ),
    "no classes": ({"kit": devkit([(4, "n00000001", "bird", 3)])}, "found no synset without children"),
    "kit without meta": ({"kit": gzip.compress(tar([("a", b"")]))}, "devkit_t12.tar.gz: found no data/meta.mat"),
    "kit cut": ({"kit": devkit()[:-9]}, "devkit_t12.tar.gz is truncated: the gzip stream ends early"),
    "kit no gzip": ({"kit": b"no gzip"}, "devkit_t12.tar.gz is not a whole .tar.gz"),
    "kit no tar": ({"kit": gzip.compress(b"x" * 3000)}, "devkit_t12.tar.gz is not a whole .tar.gz"),
    "kit with two metas": (
        {"kit": devkit(extra=[("other/" + ilsvrc2012.META, b"1")])},
        "'other/data/meta.mat': wanted one regular file",
    ),
    "meta damaged": (
        {"kit": gzip.compress(tar([(ilsvrc2012.META, b"1"), (ilsvrc2012.TRUTH, b"1")]))},
        "data/meta.mat is not a whole MATLAB file",
    ),
}


@pytest.mark.parametrize(("changes", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_archives_that_do_not_belong_together_are_refused(tmp_path, changes, message):
    folder = collection(tmp_path / "roots", **changes)
    with pytest.raises(ArchiveError) as caught:
        records(tmp_path)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_linked_meta_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(ilsvrc2012.META)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    collection(tmp_path / "roots", kit=gzip.compress(buffer.getvalue()))
    with pytest.raises(ArchiveError, match="wanted one regular file"):
        records(tmp_path)


def test_a_bomb_as_development_kit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ilsvrc2012, "MAX_DEVKIT_BYTES", 1 << 20)
    collection(tmp_path / "roots", kit=gzip.compress(bytes(3 << 20)))
    with pytest.raises(ArchiveError, match="refused as a decompression bomb"):
        records(tmp_path)


# --------------------------------------------------------------------------------------------------------- real images


def test_real_archives_in_the_official_layout(shared_data, tmp_path):
    archives = open_source(Fetch.model_validate(OFF), roots=[shared_data / "ilsvrc2012-mini"], own=tmp_path)
    assert isinstance(archives, Ilsvrc2012)
    assert len(archives.fetch(progress=False)) == 3
    found = list(archives.records(split_seed=0, val_fraction=0.1))
    assert Counter(record.split for record in found) == {"train": 27000, "val": 3000, "test": 5000}
    assert set(Counter((r.label, r.split) for r in found if r.split == "val").values()) == {15}
    assert archives.class_names()[0] == "goldfish, Carassius auratus"
    assert found[0].key == "n01443537/n01443537_104"
    assert all(pread(archives.path(r.archive), r.offset, 2) == b"\xff\xd8" for r in found[::997])


def test_without_a_val_fraction_there_is_no_way_to_split(tmp_path):
    with pytest.raises(AssertionError, match="the configuration sees to it"):
        next(source(tmp_path).records(split_seed=0, val_fraction=None))
