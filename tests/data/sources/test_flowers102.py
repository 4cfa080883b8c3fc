"""Flowers-102's three files: found, compared, inflated once; labels, splits and images must belong together."""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections import Counter

import numpy as np
import pytest
import scipy.io

from rootstock.config.fetch import Fetch, Official
from rootstock.data.archives import ArchiveError, pread
from rootstock.data.sources import flowers102
from rootstock.data.sources.flowers102 import Flowers102
from rootstock.data.sources.matlab import read_numbers
from rootstock.data.sources.open import open_source

OFF = {"collection": "flowers102", "checksums": "off", "sums": {}}


def tgz(names, contents=None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index, name in enumerate(names):
            data = contents[index] if contents else f"picture {name}".encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def collection(
    folder, *, labels=(1, 2, 3, 1, 2, 3, 1, 2, 3), train=(1, 2, 3), val=(4, 5, 6), test=(7, 8, 9), names=None
):
    """A small collection in the official layout."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"jpg/image_{number:05d}.jpg" for number in range(1, len(labels) + 1)]
    (folder / "102flowers.tgz").write_bytes(tgz(names))
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    splits = {"trnid": train, "valid": val, "tstid": test}
    scipy.io.savemat(folder / "setid.mat", {key: np.array([ids], np.uint16) for key, ids in splits.items()})
    return folder


def source(tmp_path, **config) -> Flowers102:
    return Flowers102(config=Official(**{**OFF, **config}), roots=[tmp_path / "roots"], own=tmp_path / "own")


def fetched(tmp_path, **changes) -> Flowers102:
    collection(tmp_path / "roots", **changes)
    flowers = source(tmp_path)
    flowers.fetch(progress=False, offline=True)
    return flowers


def records(flowers):
    return list(flowers.records(split_seed=0, val_fraction=None))


def test_records_hold_the_official_splits_zero_based_labels_and_the_bytes(tmp_path):
    flowers = fetched(tmp_path)
    found = records(flowers)
    assert [record.key for record in found] == [f"image_{number:05d}" for number in range(1, 10)]
    assert [record.split for record in found] == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert [record.label for record in found] == [0, 1, 2] * 3
    for record in found:
        data = pread(flowers.path(record.archive), record.offset, record.num_bytes)
        assert data == f"picture jpg/{record.key}.jpg".encode()
        assert type(record.split) is str
        assert type(record.label) is int
    assert {record.archive for record in found} == {"102flowers.tar"}


def test_seed_and_fraction_change_nothing(tmp_path):
    flowers = fetched(tmp_path)
    assert records(flowers) == list(flowers.records(split_seed=9, val_fraction=None))


def test_the_rows_are_the_three_original_files(tmp_path):
    folder = collection(tmp_path / "roots")
    rows = source(tmp_path).fetch(progress=False, offline=True)
    assert rows == [
        {"name": name, "num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat")
        for data in [(folder / name).read_bytes()]
    ]
    assert not list(folder.glob("*.tar"))  # a read-only root stays as it is


def test_a_root_may_hold_a_subfolder_of_the_collections_name(tmp_path):
    collection(tmp_path / "roots" / "flowers102")
    assert len(source(tmp_path).fetch(progress=False, offline=True)) == 3


def test_the_archive_is_inflated_once_and_again_when_it_changed(tmp_path):
    flowers = fetched(tmp_path)
    tar = tmp_path / "own" / "102flowers.tar"
    first = tar.stat().st_ino
    source(tmp_path).fetch(progress=False, offline=True)
    assert tar.stat().st_ino == first

    names = [f"jpg/image_{number:05d}.jpg" for number in range(1, 10)]
    (tmp_path / "roots" / "102flowers.tgz").write_bytes(tgz(names, [b"other"] * 9))
    source(tmp_path).fetch(progress=False, offline=True)
    record = records(flowers)[0]
    assert pread(tar, record.offset, record.num_bytes) == b"other"


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "note"])
def test_a_damaged_inflated_tar_is_noticed_and_made_again(tmp_path, damage):
    collection(tmp_path / "roots")
    flowers = source(tmp_path)
    rows = flowers.fetch(progress=False, offline=True)
    assert flowers.check(rows) == []
    tar, note = tmp_path / "own" / "102flowers.tar", tmp_path / "own" / "102flowers.tar.json"
    whole = tar.read_bytes()
    match damage:
        case "cut":
            tar.write_bytes(whole[:700])
        case "flip":
            tar.write_bytes(whole[:600] + b"#" + whole[601:])
        case "gone":
            tar.unlink()
        case "note":
            note.write_text("{")
    [difference] = flowers.check(rows)
    assert str(tar) in difference
    source(tmp_path).fetch(progress=False, offline=True)
    assert tar.read_bytes() == whole
    assert flowers.check(rows) == []


def test_check_tells_what_changed(tmp_path):
    collection(tmp_path / "roots")
    flowers = source(tmp_path)
    rows = flowers.fetch(progress=False, offline=True)
    labels, splits = tmp_path / "roots" / "imagelabels.mat", tmp_path / "roots" / "setid.mat"
    labels.write_bytes(labels.read_bytes() + b"\0")
    splits.unlink()
    differences = flowers.check(rows)
    num_bytes = labels.stat().st_size
    assert differences == [f"{labels}: found {num_bytes} bytes, wanted {num_bytes - 1}", "setid.mat: missing"]


def test_102_classes_have_names_and_other_numbers_of_classes_have_numbers(tmp_path):
    assert fetched(tmp_path).class_names() == ["class_001", "class_002", "class_003"]
    ids = np.arange(1, 102 * 3 + 1)
    full = fetched(tmp_path / "full", labels=(ids - 1) % 102 + 1, train=ids[:102], val=ids[102:204], test=ids[204:])
    assert len(full.class_names()) == 102
    assert full.class_names()[0] == "pink primrose"
    assert full.class_names()[101] == "blackberry lily"


# -------------------------------------------------------------------------------------------------------------- errors


def test_missing_files_offline_name_files_sums_and_folders(tmp_path):
    collection(tmp_path / "roots")
    (tmp_path / "roots" / "setid.mat").unlink()
    (tmp_path / "roots" / "102flowers.tgz").unlink()
    with pytest.raises(ArchiveError) as caught:
        source(tmp_path).fetch(progress=False, offline=True)
    assert str(caught.value) == (
        "flowers102: 2 of 3 files are missing:\n"
        "  102flowers.tgz  344862509 bytes  md5 52808999861908f626f3c1f4e79d11fa\n"
        "  setid.mat  14989 bytes  md5 a5357ecc9cb78c4bef273ce3793fc85c\n"
        "They are published at https://thor.robots.ox.ac.uk/datasets/flowers-102/\n"
        "Put them into one of these folders:\n"
        f"  {tmp_path}/roots\n  {tmp_path}/roots/flowers102\n  {tmp_path}/own"
    )


def test_official_sums_refuse_other_bytes_by_size_then_by_md5(tmp_path, monkeypatch):
    folder = collection(tmp_path / "roots")
    with pytest.raises(ArchiveError) as caught:
        source(tmp_path, checksums="official").fetch(progress=False, offline=True)
    path = folder / "102flowers.tgz"
    assert str(caught.value) == (
        f"flowers102: {path}: bytes: found {path.stat().st_size}, wanted 344862509 "
        "(checksums: official; for files that differ on purpose set it to own or off)"
    )
    same_size = flowers102.IMAGES._replace(num_bytes=path.stat().st_size)
    monkeypatch.setattr(flowers102, "IMAGES", same_size)
    for name in ("LABELS", "SPLITS"):
        file = getattr(flowers102, name)
        data = (folder / file.name).read_bytes()
        monkeypatch.setattr(flowers102, name, file._replace(num_bytes=len(data), md5=hashlib.md5(data).hexdigest()))
    with pytest.raises(ArchiveError, match=r"md5: found .*, wanted 52808999861908f626f3c1f4e79d11fa"):
        source(tmp_path, checksums="official").fetch(progress=False, offline=True)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(flowers102, "IMAGES", same_size._replace(md5=digest))
    assert len(source(tmp_path, checksums="official").fetch(progress=False, offline=True)) == 3


def test_own_sums_are_compared(tmp_path):
    folder = collection(tmp_path / "roots")
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert len(source(tmp_path, checksums="own", sums=sums).fetch(progress=False, offline=True)) == 3
    wrong = {**sums, "setid.mat": "0" * 64}
    with pytest.raises(ArchiveError, match=f"setid.mat: sha256: found {sums['setid.mat']}, wanted {'0' * 64}"):
        source(tmp_path, checksums="own", sums=wrong).fetch(progress=False, offline=True)
    with pytest.raises(ArchiveError, match=r"sums: found setid\.mat, wanted a sha256 for each of 102flowers\.tgz, "):
        source(tmp_path, checksums="own", sums={"setid.mat": "0" * 64})


NAMES = [f"jpg/image_{number:05d}.jpg" for number in range(1, 10)]
MISMATCHES = {
    "too few labels": (
        {"labels": (1, 2, 3, 1, 2, 3, 1, 2), "test": (7, 8), "names": NAMES},
        "found 8 labels, wanted 9, the",
    ),
    "too many labels": (
        {"labels": (1, 2, 3) * 3 + (1,), "test": (7, 8, 9, 10), "names": NAMES},
        "imagelabels.mat: found 10 labels, wanted 9, the images in",
    ),
    "image missing": (
        {"names": [*NAMES[:4], *NAMES[5:], "image_00099.jpg"]},
        "image_00005.jpg is missing; wanted images 1 to 9",
    ),
    "image twice": (
        {"names": [*NAMES[:8], "other/image_00001.jpg"]},
        "duplicate key: 'other/image_00001.jpg' is image 1 again",
    ),
    "another file": ({"names": [*NAMES, "readme.txt"]}, "found 'readme.txt', wanted image_<number>.jpg only"),
    "id out of range": ({"test": (7, 8, 9, 10)}, "setid.mat: tstid: found image 10, wanted 1 to 9"),
    "id zero": ({"train": (0, 1, 2)}, "setid.mat: trnid[0]: found 0, wanted a whole number >= 1"),
    "id in two splits": ({"val": (3, 4, 5, 6)}, "setid.mat: image 3 is in trnid and again in valid; wanted one split"),
    "id twice": ({"train": (1, 2, 3, 3)}, "image 3 is in trnid and again in trnid; wanted one split"),
    "id in no split": (
        {"test": (7, 8)},
        "setid.mat: image 9 is in no split; wanted one of ['trnid', 'valid', 'tstid']",
    ),
    "empty class": (
        {"labels": (1, 2, 2, 1, 2, 3, 1, 2, 3)},
        "setid.mat: empty class: class 3 has no image in trnid, wanted at least one",
    ),
    "class zero": (
        {"labels": (0, 2, 3, 1, 2, 3, 1, 2, 3)},
        "imagelabels.mat: labels[0]: found 0, wanted a whole number >= 1",
    ),
    "traversal": ({"names": [*NAMES, "../image_00010.jpg"]}, "'../image_00010.jpg' has `..` in its name"),
}


@pytest.mark.parametrize(("changes", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_files_that_do_not_belong_together_are_refused_before_any_record(tmp_path, changes, message):
    flowers = fetched(tmp_path, **changes)
    with pytest.raises(ArchiveError) as caught:
        next(flowers.records(split_seed=0, val_fraction=None))
    assert message in str(caught.value)


def test_a_truncated_tgz_is_refused_and_nothing_is_left(tmp_path):
    path = collection(tmp_path / "roots") / "102flowers.tgz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"102flowers\.tgz is truncated"):
        source(tmp_path).fetch(progress=False, offline=True)
    assert not list((tmp_path / "own").glob("102flowers*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a whole MATLAB file"),
        (b"no matlab", "is not a whole MATLAB file"),
        (b"\0" * 200, "is not a whole|found the"),
    ],
)
def test_a_label_file_that_is_no_matlab_file_is_refused(tmp_path, content, message):
    flowers = fetched(tmp_path)
    (tmp_path / "roots" / "imagelabels.mat").write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"imagelabels\.mat.*({message})"):
        flowers.class_names()


def test_a_label_file_without_labels_names_what_it_has(tmp_path):
    flowers = fetched(tmp_path)
    scipy.io.savemat(tmp_path / "roots" / "imagelabels.mat", {"other": np.ones(3), "words": "x"})
    with pytest.raises(ArchiveError, match=r"found the variables \['other', 'words'\], wanted 'labels'"):
        flowers.class_names()


def test_damaged_matlab_bytes_are_never_another_error():
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"labels": np.arange(1, 400, dtype=np.uint16)}, do_compression=True)
    whole = buffer.getvalue()
    draws = np.random.Generator(np.random.PCG64(0))
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        if draws.random() < 0.5:
            del data[draws.integers(len(data)) :]
        else:
            data[draws.integers(len(data))] ^= int(draws.integers(1, 256))
        try:
            read_numbers(bytes(data), variable="labels", where="labels.mat")
        except ArchiveError:
            refused += 1
    assert refused > 150


# ----------------------------------------------------------------------------------------------------------- downloads


def test_absent_files_are_downloaded_into_our_own_folder(tmp_path, monkeypatch):
    folder = collection(tmp_path / "server")
    (tmp_path / "roots").mkdir()
    shutil.copy(folder / "setid.mat", tmp_path / "roots")
    asked = []

    def download(url, target, *, md5, num_bytes, progress):
        asked.append((url, md5, num_bytes))
        os.makedirs(target.parent, exist_ok=True)
        shutil.copy(folder / target.name, target)

    monkeypatch.setattr(flowers102, "download", download)
    flowers = source(tmp_path)
    assert len(flowers.fetch(progress=False)) == 3
    assert asked == [
        ("https://thor.robots.ox.ac.uk/datasets/flowers-102/102flowers.tgz", None, None),
        ("https://thor.robots.ox.ac.uk/datasets/flowers-102/imagelabels.mat", None, None),
    ]
    assert len(records(flowers)) == 9

    asked.clear()
    with pytest.raises(ArchiveError):  # the copies are not the official bytes
        Flowers102(config=Official(**{**OFF, "checksums": "official"}), roots=[], own=tmp_path / "other").fetch(
            progress=False
        )
    assert asked[0][1:] == ("52808999861908f626f3c1f4e79d11fa", 344862509)


# --------------------------------------------------------------------------------------------------------- real images


def test_the_real_collection_has_its_official_splits(shared_data, tmp_path):
    config = Fetch.model_validate(OFF)
    flowers = open_source(config, roots=[shared_data], own=tmp_path)
    assert isinstance(flowers, Flowers102)
    rows = flowers.fetch(progress=False, offline=True)
    found = records(flowers)
    assert Counter(record.split for record in found) == {"train": 1020, "val": 1020, "test": 6149}
    assert found[0][:4] == ("image_00001", "test", 76, "102flowers.tar")  # a passion flower
    assert flowers.class_names()[76] == "passion flower"
    assert all(pread(flowers.path(record.archive), record.offset, 2) == b"\xff\xd8" for record in found[::500])
    assert flowers.check(rows) == []
