import gzip
import hashlib
import io
import json
import os
import runpy
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from scipy.io import loadmat

from rootstock.config.fetch import Demo as DemoConfig
from rootstock.data.archives import pread
from rootstock.data.sources import demo
from rootstock.data.sources.drawn_shapes import FIGURES

# A change of any of these is a change of the generator: raise GENERATOR_VERSION, and measure the demo again.
FROZEN = {
    ("ilsvrc2012", "five lobes", "train", 0): "50e33fafa95fcbc09bcc944672d42114e0f15d20685f214627f5e36dea989865",
    ("ilsvrc2012", "ear", "train", 7): "8a07c06c33f1d733239f5ce4bcc98d0be8d223d1326c0491ea5a0cf4e863172e",
    ("ilsvrc2012", "checks", "val", 3): "7ff4852506803fa87375d35505d0c82536bde4490ef898fc291bb1f92972ee8d",
    ("ilsvrc2012", "spiral", "val", 11): "835f565626924ef2920d500f3e304e31b81f1c4decefe209fc2a034c6c45ecd3",
    ("flowers102", "sunflower", "trnid", 0): "141dba02a180904d879bc7f957d1ca2b6420d13d68f56138bb2bed45de1b25db",
    ("flowers102", "orchid", "valid", 4): "4ac3594e00e583eb7843fd1747b85120721717e5d68eb9029ebda1b354957aeb",
    ("flowers102", "tulip", "tstid", 9): "3a59f5566f7ea16be7f4b84560e08c2e7bb2102ea3e9189934727f69e891d5c0",
    ("flowers102", "daffodil", "tstid", 39): "d45ca5575fa0c962b299b51b172b8e4c9a2b55cf85351123030333110d472918",
}
TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "SOURCE_TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(demo, "SOURCE_VAL_PER_CLASS", 2)
    monkeypatch.setattr(demo, "TARGET_PER_CLASS", {"trnid": 2, "valid": 1, "tstid": 1})


def collection(layout: str, own: Path, *, seed: int = 0) -> demo.Demo:
    return demo.Demo(config=DemoConfig(collection="demo", layout=layout, seed=seed), roots=[], own=own)


def fetched(layout: str, own: Path, *, seed: int = 0) -> demo.Demo:
    source = collection(layout, own, seed=seed)
    source.fetch(progress=False)
    return source


def bytes_in(folder: Path) -> dict[str, bytes]:
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    return {name: (folder / name).read_bytes() for name in sorted(names)}


@pytest.mark.parametrize(("picture", "wanted"), FROZEN.items())
def test_the_generator_is_frozen(picture, wanted):
    layout, name, split, index = picture
    pixels = demo.picture(layout=layout, seed=0, name=name, split=split, index=index)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest() == wanted


@pytest.mark.parametrize(("layout", "names"), [("ilsvrc2012", FIGURES), ("flowers102", demo.FLOWERS)])
def test_every_class_draws_pictures_of_the_stated_size(layout, names):
    split = "val" if layout == "ilsvrc2012" else "tstid"
    for name in names:
        for index in range(2):
            pixels = demo.picture(layout=layout, seed=5, name=name, split=split, index=index)
            assert pixels.shape[2] == 3
            assert min(pixels.shape[:2]) == demo.SHORT_SIDE
            assert max(pixels.shape[:2]) <= demo.MAX_LONG_SIDE
            assert pixels.std() > 5


DIGEST_OF_ALL_CLASSES = """
import hashlib
from rootstock.data.sources import demo

digest = hashlib.sha256()
for layout, names in (("ilsvrc2012", demo.FIGURES), ("flowers102", demo.FLOWERS)):
    for name in names:
        for index in range(2):
            digest.update(demo.picture(layout=layout, seed=3, name=name, split="", index=index).tobytes())
print(digest.hexdigest())
"""


def test_pixels_do_not_depend_on_the_instruction_set():
    without = {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,AVX,FP16,FMA3",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
    }
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST_OF_ALL_CLASSES],
            env={**os.environ, **changes},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
        ).stdout
        for changes in ({}, without)
    ]
    assert len(digests[0].strip()) == 64
    assert digests[0] == digests[1]


def test_seed_split_class_and_index_each_change_the_picture():
    base = {"layout": "ilsvrc2012", "seed": 0, "name": "gear", "split": "train", "index": 0}
    changes = [{}, {"seed": 1}, {"split": "val"}, {"index": 1}, {"name": "wheel"}]
    digests = {hashlib.sha256(demo.picture(**{**base, **change}).tobytes()).digest() for change in changes}
    assert len(digests) == len(changes)
    assert np.array_equal(demo.picture(**base), demo.picture(**base))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("layout", ["ilsvrc2012", "flowers102"])
def test_equal_seeds_give_equal_archives(tmp_path, layout):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fetched(layout, tmp_path / name, seed=seed)
    first, again, other = (bytes_in(tmp_path / name) for name in "abc")
    assert first == again
    assert {name for name in first if first[name] != other[name]} >= {
        "ilsvrc2012": {TRAIN, VAL, DEVKIT},
        "flowers102": {"102flowers.tgz", "imagelabels.mat", "setid.mat"},
    }[layout]


@pytest.mark.usefixtures("small")
def test_source_archives_have_the_official_layout(tmp_path):
    fetched("ilsvrc2012", tmp_path)
    with tarfile.open(tmp_path / TRAIN) as train:
        wnids = [name.removesuffix(".tar") for name in train.getnames()]
        assert len(wnids) == len(FIGURES)
        with tarfile.open(fileobj=train.extractfile(f"{wnids[2]}.tar")) as inner:
            assert inner.getnames() == [f"{wnids[2]}_{n}.JPEG" for n in (1, 2, 3)]
            header = inner.getmembers()[0]
            assert (header.mtime, header.uid, header.gid, header.uname, header.mode) == (0, 0, 0, "", 0o644)
    with tarfile.open(tmp_path / VAL) as val:
        num_val = 2 * len(FIGURES)
        assert val.getnames() == [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, num_val + 1)]
    with tarfile.open(tmp_path / DEVKIT, "r:gz") as kit:
        meta = kit.extractfile("ILSVRC2012_devkit_t12/data/meta.mat").read()
        truth = kit.extractfile("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt").read().split()
    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    assert [int(row["ILSVRC2012_ID"]) for row in synsets] == list(range(1, len(FIGURES) + 4))
    assert {str(row["WNID"]) for row in synsets if row["num_children"] == 0} == set(wnids)
    assert set(Counter(truth).values()) == {2}
    root = synsets[-1]
    assert (int(root["num_children"]), root["children"].tolist()) == (2, [len(FIGURES) + 1, len(FIGURES) + 2])


@pytest.mark.usefixtures("small")
def test_source_records_lead_to_the_pictures_of_their_class(tmp_path):
    source = fetched("ilsvrc2012", tmp_path)
    records = list(source.records(split_seed=0, val_fraction=0.34))
    assert source.class_names() == list(FIGURES)
    num_classes = len(FIGURES)
    assert Counter(record.split for record in records) == {
        "train": 2 * num_classes,
        "val": num_classes,
        "test": 2 * num_classes,
    }
    record = next(record for record in records if record.key == "n90000005/n90000005_2")
    drawn = demo.picture(layout="ilsvrc2012", seed=0, name=list(FIGURES)[record.label], split="train", index=1)
    assert near(source, record, drawn)
    tests = [record for record in records if record.split == "test" and record.label == 7]
    for index in range(2):  # the ground truth names the class that was drawn
        drawn = demo.picture(layout="ilsvrc2012", seed=0, name=list(FIGURES)[7], split="val", index=index)
        assert sum(near(source, record, drawn) for record in tests) == 1


@pytest.mark.usefixtures("small")
def test_target_files_lead_to_the_pictures_of_their_class_and_split(tmp_path):
    source = fetched("flowers102", tmp_path)
    labels = loadmat(tmp_path / "imagelabels.mat")["labels"]
    splits = loadmat(tmp_path / "setid.mat")
    num_images = 4 * len(demo.FLOWERS)
    assert labels.shape == (1, num_images)
    assert Counter(labels[0].tolist()) == dict.fromkeys(range(1, len(demo.FLOWERS) + 1), 4)
    assert sorted(np.hstack([splits[key] for key in ("trnid", "valid", "tstid")])[0]) == list(range(1, num_images + 1))
    records = list(source.records(split_seed=0, val_fraction=0.1))
    for label, name in enumerate(source.class_names()):
        trained = [record for record in records if record.split == "train" and record.label == label]
        assert len(trained) == 2
        drawn = demo.picture(layout="flowers102", seed=0, name=name, split="trnid", index=0)
        assert sum(near(source, record, drawn) for record in trained) == 1


def near(source: demo.Demo, record, drawn: np.ndarray) -> bool:
    """Whether a record's JPEG is this drawing, up to what JPEG loses."""
    stored = simplejpeg.decode_jpeg(pread(source.path(record.archive), record.offset, record.num_bytes))
    return stored.shape == drawn.shape and bool(np.abs(stored.astype(int) - drawn).mean() < 6)


@pytest.mark.usefixtures("small")
def test_archives_are_made_once_and_again_when_damaged_or_asked_otherwise(tmp_path, monkeypatch):
    rows = collection("flowers102", tmp_path).fetch(progress=False)
    before = bytes_in(tmp_path)
    drawn = []
    write = demo.write_target
    monkeypatch.setattr(demo, "write_target", lambda folder, **how: (drawn.append(how["seed"]), write(folder, **how)))
    assert collection("flowers102", tmp_path).fetch(progress=False) == rows
    assert drawn == []
    whole = (tmp_path / "setid.mat").read_bytes()
    (tmp_path / "setid.mat").write_bytes(whole[:-1] + b"\x07")
    assert collection("flowers102", tmp_path).fetch(progress=False) == rows
    assert drawn == [0]
    (tmp_path / "demo.json").write_text("{")
    collection("flowers102", tmp_path).fetch(progress=False)
    assert drawn == [0, 0]
    assert bytes_in(tmp_path) == before
    collection("flowers102", tmp_path, seed=1).fetch(progress=False)
    assert drawn == [0, 0, 1]
    monkeypatch.setattr(demo, "GENERATOR_VERSION", 0)
    collection("flowers102", tmp_path, seed=1).fetch(progress=False)
    assert drawn == [0, 0, 1, 1]


@pytest.mark.usefixtures("small")
def test_an_interruption_leaves_nothing_that_counts(tmp_path, monkeypatch):
    calls = []

    def interrupted(**what):
        calls.append(what)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return original(**what)

    original = demo.picture
    monkeypatch.setattr(demo, "picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collection("ilsvrc2012", tmp_path).fetch(progress=False)
    assert [file.name for file in tmp_path.iterdir()] == []
    monkeypatch.setattr(demo, "picture", original)
    assert len(collection("ilsvrc2012", tmp_path).fetch(progress=False)) == 3


@pytest.mark.parametrize("num_bytes", [0, 1, 65535, 65536, 200_000])
def test_stored_gzip_is_gzip(num_bytes):
    data = np.random.default_rng(0).bytes(num_bytes)
    assert gzip.decompress(demo._gzip_stored(data)) == data


def test_linear_classifiers_on_colour_and_coarse_layout_stay_near_chance(repository):
    measured = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "demo_baselines.py"), "--seed", "0"],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # small products: more threads than cores cost minutes
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    ).stdout
    facts = json.loads(measured)
    assert (facts["num_train"], facts["num_test"]) == (340, 680)
    assert len(facts["accuracy_on_test"]) == 3
    for name, accuracy in facts["accuracy_on_test"].items():
        assert accuracy <= 0.30, name


def test_the_baselines_classifier_learns_what_its_features_hold(repository):
    baselines = runpy.run_path(str(repository / "benchmarks" / "demo_baselines.py"))
    labels = np.arange(51) % 17
    features_ND = np.eye(17)[labels] + np.random.default_rng(0).normal(0, 0.05, (51, 17))
    weights = baselines["fit"](features_ND, labels, num_classes=17, penalty=1e-3)
    assert ((features_ND @ weights[:-1] + weights[-1]).argmax(axis=1) == labels).all()
