"""Shards are the same bytes on every rebuild, webdataset's own layout, and no fault in them goes unseen."""

import gc
import hashlib
import io
import pickle
import random
import subprocess
import sys
import tarfile
import textwrap
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rootstock.data import shard_plan, shards
from rootstock.data.shards import ShardError, ShardSet, verify_shards
from rootstock.data.stats import measure
from rootstock.data.tar_writer import TarWriter, archive_bytes, header, member_bytes
from rootstock.schema.contract import ContractError, read_facts, read_table, write_table
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW
from rootstock.schema.shards import INDEX, INDEX_ARROW


def write(collection, folder, *, short_side=None, quality=90, max_shard_bytes=60_000, seed=1, workers=1):
    shards.write(
        collection.manifest,
        locate=collection.locate,
        folder=folder,
        short_side=short_side,
        quality=quality,
        max_shard_bytes=max_shard_bytes,
        seed=seed,
        workers=workers,
    )


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def collection(plant, encode):
    rng = np.random.default_rng(4)
    sizes = rng.integers(20, 50, (48, 2))
    pixels = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    images = [encode(image, quality=None if number % 7 == 0 else 92) for number, image in enumerate(pixels)]
    return plant(images, splits=[("train", "val", "train", "test")[number % 4] for number in range(48)])


@pytest.fixture
def folder(collection, tmp_path):
    write(collection, tmp_path / "shards")
    return tmp_path / "shards"


# webdataset leaves its files to the garbage collector
leaks_files = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


# ------------------------------------------------------------------------------------------------------------ tar bytes


NAMES = st.lists(st.text("abz09_-", min_size=1, max_size=60), min_size=1, max_size=5).map("/".join)


@settings(max_examples=60, deadline=None)
@given(files=st.lists(st.tuples(NAMES, st.integers(0, 1500)), max_size=8))
@example(
    files=[("a" * 100, 512), ("b" * 155 + "/" + "c" * 100, 0), ("d/" * 50 + "e", 513), ("f/" * 127 + "g" * 100, 1)]
)
def test_tars_are_those_of_tarfile(tmp_path_factory, files):
    path = tmp_path_factory.mktemp("tar") / "ours.tar"
    wanted = io.BytesIO()
    with TarWriter(path) as ours, tarfile.open(fileobj=wanted, mode="w", format=tarfile.USTAR_FORMAT) as theirs:
        content = 0
        for name, size in files:
            data = bytes([size % 251]) * size
            info = tarfile.TarInfo(name)
            info.size, info.mode = size, 0o444
            try:
                theirs.addfile(info, io.BytesIO(data))
            except ValueError:
                with pytest.raises(ValueError, match="wanted at most 100"):
                    ours.add(name, data)
                continue
            assert ours.add(name, data) == content + 512
            content += member_bytes(size)
        theirs.close()
        sha256, num_bytes = ours.close()
    found = path.read_bytes()
    assert found == wanted.getvalue()
    assert sha256 == hashlib.sha256(found).hexdigest()
    assert num_bytes == len(found) == archive_bytes(content)


def test_what_does_not_fit_the_format_is_refused():
    with pytest.raises(ValueError, match="found a name of 101 bytes, wanted at most 100, or a `/`"):
        header("x" * 101, 1)
    with pytest.raises(ValueError, match=r"big: found 8589934592 bytes, wanted at most 8589934591 in a tar"):
        header("big", 8**11)


def test_an_unfinished_tar_leaves_nothing(tmp_path):
    with TarWriter(tmp_path / "a.tar") as tar:
        tar.add("a", b"1")
        assert [path.name for path in tmp_path.iterdir()] == [".a.tar.tmp"]
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------------- plan


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=120),
    max_shard_bytes=st.integers(51_200, 400_000),
    seed=st.integers(0, 5),
)
def test_a_plan_holds_every_sample_once_and_no_shard_is_too_large(sizes, max_shard_bytes, seed):
    table = packed(sizes)
    found = shard_plan.plan(table, short_side=None, max_shard_bytes=max_shard_bytes, seed=seed)
    assert Counter(np.concatenate([shard.rows for shard in found]).tolist()) == Counter(range(len(sizes)))
    for shard in found:
        assert {table["split"][int(row)].as_py() for row in shard.rows} == {shard.split}
        assert archive_bytes(sum(member_bytes(sizes[row]) + 1024 for row in shard.rows)) <= max_shard_bytes
    for split in ("train", "val", "test"):
        names = [shard.name for shard in found if shard.split == split]
        assert names == [f"{split}-{number:06d}.tar" for number in range(len(names))]


def packed(sizes):
    rows = [
        {"key": str(n), "split": ("train", "train", "val")[n % 3], "label": n % 5, "archive": "a", "offset": 0}
        | {"num_bytes": size, "format": "jpeg", "width": 10, "height": 10, "sha256": "0" * 64, "gate": False}
        for n, size in enumerate(sizes)
    ]
    frames = [pd.DataFrame(rows[start : start + 7], columns=MANIFEST_ARROW.names) for start in range(0, len(rows), 7)]
    return shard_plan.pack(frames)


def test_shards_are_balanced_mixed_and_few():
    found = shard_plan.plan(packed([1000] * 3000), short_side=None, max_shard_bytes=500_000, seed=3)
    train = [shard.rows for shard in found if shard.split == "train"]
    assert len(train) == 11  # 2000 samples of 2560 bytes are 5.12 MB
    assert max(map(len, train)) - min(map(len, train)) <= 1
    for rows in train:  # five classes in equal parts: about 36 of each, whatever the manifest's order
        counts = np.bincount(rows % 5, minlength=5)
        assert counts.min() >= 15


def test_the_seed_decides_the_order():
    plans = [
        shard_plan.plan(packed([1000] * 50), short_side=None, max_shard_bytes=10**6, seed=seed) for seed in (1, 1, 2)
    ]
    orders = [np.concatenate([shard.rows for shard in plan]).tolist() for plan in plans]
    assert orders[0] == orders[1] != orders[2]


def test_a_sample_larger_than_a_shard_is_named():
    with pytest.raises(
        ValueError, match="max_shard_bytes: found 51200, wanted at least 71680, which the sample 1 alone"
    ):
        shard_plan.plan(packed([10, 69_000, 20]), short_side=None, max_shard_bytes=51_200, seed=0)


# -------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(("short_side", "processes"), [(None, (2, 3)), (24, (2,))])
def test_any_number_of_workers_writes_the_same_bytes(collection, tmp_path, short_side, processes):
    write(collection, tmp_path / "1", short_side=short_side)
    wanted = contents(tmp_path / "1")
    assert len(wanted) > 4
    with ThreadPoolExecutor(2) as pool:
        for number, workers in enumerate((*processes, pool), start=2):
            write(collection, tmp_path / str(number), short_side=short_side, workers=workers)
            assert contents(tmp_path / str(number)) == wanted


def test_raw_bytes_labels_and_facts_come_through(collection, folder):
    rows = collection.rows.set_index("key")
    archive = collection.archive.read_bytes()
    with ShardSet(folder, verify="always") as found:
        assert len(found) == len(rows)
        assert set(found.keys) == set(rows.index)
        for position, key in enumerate(found.keys):
            row = rows.loc[key]
            assert found.read(position) == archive[row["offset"] : row["offset"] + row["num_bytes"]]
            assert found.labels[position] == row["label"]
            assert found.splits[position] == row["split"]
            assert found.gate[position] == row["gate"]
            assert found.decode(found.read(position)).shape == (row["height"], row["width"], 3)
            with ShardSet(folder, verify="never") as unchecked:
                data = unchecked.read(position)
                assert unchecked.decode(data, num_rows=lambda *_: 1).shape == (row["height"], row["width"], 3)
        assert found.class_names == ["a", "b", "c"]
        assert found.facts["collection"] == "planted"
        assert found.facts["decode"] == read_facts(collection.manifest)["decode"]
    assert verify_shards(folder) == []
    for name, shard in read_facts(folder / "index.parquet")["shards"].items():
        data = (folder / name).read_bytes()
        assert shard["num_bytes"] == len(data) <= 60_000
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()


def test_shards_and_statistics_of_one_manifest_carry_the_same_digest(collection, folder):
    found = measure(collection.manifest, locate=collection.locate, short_side=20, crop_size=20, workers=1)
    assert read_facts(folder / "index.parquet")["data_digest"] == found.data_digest


def test_large_images_shrink_and_small_ones_keep_their_bytes(collection, tmp_path):
    write(collection, tmp_path / "raw")
    write(collection, tmp_path / "small", short_side=30)
    raw, small = ShardSet(tmp_path / "raw", verify="always"), ShardSet(tmp_path / "small", verify="always")
    num_shrunk = 0
    for a, b in zip(raw.positions(["train"], gate=None), small.positions(["train"], gate=None), strict=True):
        assert raw.keys[a] == small.keys[b]
        before, after = (images.decode(images.read(position)) for images, position in ((raw, a), (small, b)))
        if min(before.shape[:2]) <= 30:
            assert small.read(b) == raw.read(a)
        else:
            num_shrunk += 1
            assert min(after.shape[:2]) == 30
            assert abs(after.shape[0] / after.shape[1] - before.shape[0] / before.shape[1]) < 0.05
            image = Image.open(io.BytesIO(small.read(b)))
            assert (image.format, image.layers) == ("JPEG", 3)
            assert image.layer[0][1:3] == (2, 2)  # 4:2:0
    assert num_shrunk > 3
    assert verify_shards(tmp_path / "small") == []


def test_photographs_shrink_to_less_than_the_plan_allows(plant, shared_data, tmp_path):
    with tarfile.open(shared_data / "imagenet-natural" / "images.tar") as archive:
        images = [archive.extractfile(member).read() for member in archive if member.isfile()][:40]
    write(plant(images), tmp_path / "s", short_side=128, quality=95, max_shard_bytes=300_000)
    found = ShardSet(tmp_path / "s", verify="always")
    assert all(shard["num_bytes"] <= 300_000 for shard in found.facts["shards"].values())
    for position in range(0, 40, 7):
        image = found.decode(found.read(position))
        wanted = Image.open(io.BytesIO(images[int(found.keys[position][-5:])])).convert("RGB")
        wanted = wanted.resize(image.shape[1::-1], Image.Resampling.BILINEAR)
        difference = np.abs(image.astype(int) - np.asarray(wanted)).mean()
        assert difference < 8, difference  # grey levels: the JPEG's own loss; another picture differs by about 60


def test_a_changed_archive_is_noticed_and_nothing_is_left(collection, tmp_path):
    row = collection.rows.iloc[20]
    data = bytearray(collection.archive.read_bytes())
    data[row["offset"] + 30] ^= 4
    collection.archive.write_bytes(data)
    for workers in (1, 2):
        with pytest.raises(
            ValueError, match=r"images.bin: class/00020: found bytes of sha256 .*, wanted .*; the archive"
        ):
            write(collection, tmp_path / "shards", workers=workers)
        assert contents(tmp_path / "shards") == {}


class Weighing(Executor):
    """Runs each call here and adds up what sending it to another process would take."""

    def __init__(self):
        self.num_bytes, self.tasks = 0, []

    def submit(self, function, /, task):
        self.num_bytes += len(pickle.dumps(task))
        self.tasks.append(task)
        done = Future()
        done.set_result(function(task))
        return done


def one_file_archives(tmp_path, number: int, data: bytes):
    """A manifest of a folder: each image is an archive of its own name. Here all of them are one file."""
    image = tmp_path / "image.png"
    image.write_bytes(data)
    rows = [
        {"key": f"class/{n:05d}", "split": "train", "label": n % 2, "archive": f"class/a long name {n:05d}.png"}
        | {"offset": 0, "num_bytes": len(data), "format": "png", "width": 8, "height": 8}
        | {"sha256": hashlib.sha256(data).hexdigest(), "gate": False}
        for n in range(number)
    ]
    frame = pd.DataFrame(rows).astype({"label": "int32", "width": "int32", "height": "int32"})
    facts = {
        "collection": "folder",
        "class_names": ["a", "b"],
        "decode": {"backend": "simplejpeg", "max_pixels": 10**6},
    }
    write_table(tmp_path / f"{number}.parquet", [frame], MANIFEST, MANIFEST_ARROW, facts)
    return tmp_path / f"{number}.parquet", lambda name: image


def test_what_workers_are_sent_grows_no_faster_than_the_collection(encode, tmp_path, monkeypatch):
    monkeypatch.setattr("rootstock.data.tar_writer.os.fsync", lambda descriptor: None)
    data = encode(np.zeros((8, 8, 3), np.uint8))
    sent = {}
    for number in (2000, 4000):
        manifest, locate = one_file_archives(tmp_path, number, data)
        pool = Weighing()
        shards.write(
            manifest, locate=locate, folder=tmp_path / "shards",
            short_side=None, quality=90, max_shard_bytes=102_400, seed=0, workers=pool,
        )  # fmt: skip
        assert len(pool.tasks) > 20
        for task in pool.tasks:
            assert set(task.archives) == set(task.samples["archive"].to_pylist())
        sent[number] = pool.num_bytes
    assert sent[4000] / sent[2000] < 2.5


def test_what_an_earlier_run_left_goes_and_what_is_not_ours_stays(collection, folder):
    wanted = contents(folder)
    (folder / "train-000099.tar").write_bytes(b"old")
    (folder / "train-notes.tar").write_bytes(b"mine")
    write(collection, folder)
    assert contents(folder) == wanted | {"train-notes.tar": b"mine"}


def test_without_an_index_there_are_no_shards(folder):
    (folder / "index.parquet").unlink()
    with pytest.raises(ShardError, match=r"index.parquet is missing: the shards are not there or were not finished"):
        ShardSet(folder, verify="never")


def test_a_doubled_key_in_different_row_groups_is_found(plant, encode, tmp_path):
    images = [encode(np.full((9, 9, 3), value, np.uint8)) for value in range(4)]
    collection = plant(images, keys=["a", "b", "a", "c"], rows_per_group=2)
    with pytest.raises(ContractError, match=r"manifest.parquet: column key: found 'a' more than once"):
        write(collection, tmp_path / "shards")


# -------------------------------------------------------------------------------------------------------------- reading


def test_positions_follow_the_keys_whatever_the_cut(collection, tmp_path):
    orders = []
    for number, (seed, size) in enumerate([(1, 60_000), (2, 60_000), (1, 10**6)]):
        write(collection, tmp_path / str(number), seed=seed, max_shard_bytes=size)
        found = ShardSet(tmp_path / str(number), verify="never")
        orders.append([found.keys[p] for p in found.positions(["val", "train"], gate=None)])
    assert orders[0] == orders[1] == orders[2] == sorted(orders[0])
    assert len(orders[0]) == 36


def test_positions_by_split_and_gate(collection, folder):
    found = ShardSet(folder, verify="never")
    rows = collection.rows
    for splits in (["train"], ["val"], ["train", "val"], ["test"], []):
        for gate in (None, True, False):
            wanted = rows[rows["split"].isin(splits) & ((gate is None) | (rows["gate"] == gate))]["key"]
            positions = found.positions(splits, gate=gate)
            assert positions.dtype == np.int64
            assert [found.keys[p] for p in positions] == sorted(wanted)


def test_threads_read_the_right_bytes(folder):
    found = ShardSet(folder, verify="always")
    positions = np.random.default_rng(0).integers(0, len(found), 2000)
    wanted = [found.read(position) for position in range(len(found))]
    with ThreadPoolExecutor(8) as pool:
        for position, data in zip(positions, pool.map(found.read, positions), strict=True):
            assert data == wanted[position]


def test_more_shards_than_a_process_may_open_are_read(plant, encode, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (300, 45, 45, 3), np.uint8)
    write(plant([encode(image) for image in pixels]), tmp_path / "shards", max_shard_bytes=10_240)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 300
    program = """
        import os, resource, sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from rootstock.data.shards import ShardSet

        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        with ShardSet(Path(sys.argv[1]), verify="always") as found:
            before = len(os.listdir("/proc/self/fd"))
            with ThreadPoolExecutor(8) as pool:
                print(sum(map(len, pool.map(found.read, [*range(300), *range(0, 300, 7)]))))
        assert len(os.listdir("/proc/self/fd")) == before, "open files stay behind"
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "shards")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    sizes = [len(encode(image)) for image in pixels]
    assert int(ended.stdout) > sum(sizes)


@leaks_files
def test_webdataset_reads_the_same_samples(collection, folder):
    rows = collection.rows.set_index("key")
    archive = collection.archive.read_bytes()
    for split in ("train", "val", "test"):
        samples = list(shards.as_webdataset(folder, split=split))
        assert sorted(sample["__key__"] for sample in samples) == sorted(rows.index[rows["split"] == split])
        for sample in samples:
            row = rows.loc[sample["__key__"]]
            kind = {"jpeg": "jpg"}.get(row["format"], row["format"])
            assert sample[kind] == archive[row["offset"] : row["offset"] + row["num_bytes"]]
            assert int(sample["cls"]) == row["label"]
    gc.collect()
    with pytest.raises(ShardError, match="found no shards of split 'none'"):
        shards.as_webdataset(folder, split="none")


@leaks_files
def test_shards_are_those_of_webdatasets_own_writer(folder, tmp_path):
    import webdataset

    index = read_table(folder / "index.parquet", INDEX)
    found = ShardSet(folder, verify="always")
    for name, rows in index.groupby("shard"):
        theirs = str(tmp_path / name)
        with webdataset.TarWriter(theirs, encoder=False, mtime=0, user="", group="") as writer:
            for position, row in rows.iterrows():
                kind = {"jpeg": "jpg"}.get(row["format"], row["format"])
                writer.write({"__key__": row["key"], kind: found.read(position), "cls": str(row["label"]).encode()})
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


# --------------------------------------------------------------------------------------------------------------- faults


def test_every_flipped_bit_of_an_image_is_found_by_its_key(folder):
    index = read_table(folder / "index.parquet", INDEX)
    chance = random.Random(5)
    found = ShardSet(folder, verify="always")
    for number in range(60):
        row = index.iloc[chance.randrange(len(index))]
        path = folder / row["shard"]
        data = path.read_bytes()
        changed = bytearray(data)
        changed[row["offset"] + chance.randrange(row["num_bytes"])] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        for position, key in enumerate(found.keys):
            if key == row["key"]:
                with pytest.raises(ShardError, match=rf"{row['shard']}: {key}: found sha256 .*, wanted .*changed"):
                    found.read(position)
            else:
                found.read(position)
        if number % 6 == 0:
            differences = verify_shards(folder)
            assert len(differences) == 1
            assert f"{row['shard']}: {row['key']}: found {row['num_bytes']} bytes of sha256" in differences[0]
        path.write_bytes(data)
    assert verify_shards(folder) == []


def test_every_flipped_bit_elsewhere_is_found_by_its_key(folder):
    index = read_table(folder / "index.parquet", INDEX)
    chance = random.Random(6)
    for path in folder.glob("*.tar"):
        data = path.read_bytes()
        images = index[index["shard"] == path.name].sort_values("offset")
        wanted = []
        for row in images.itertuples():
            places = {
                row.offset - 1536: "the label's header: found other bytes than the index says",
                row.offset - 1024: "the label: found other bytes than the index says; found the label",
                row.offset - 512: "the image's header: found other bytes than the index says",
            }
            if row.num_bytes % 512:
                places[row.offset + row.num_bytes] = "found other bytes than zeros behind the image"
            wanted += [(place, f"{path}: {row.key}: {text}") for place, text in places.items()]
        wanted = [*chance.sample(wanted, 5), (len(data) - 1, f"{path}: found other bytes than zeros at the end")]
        for place, text in wanted:
            changed = bytearray(data)
            changed[place] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            assert any(line.startswith(text) for line in verify_shards(folder)), (text, verify_shards(folder))
        path.write_bytes(data)


def test_every_cut_is_found(folder):
    chance = random.Random(7)
    paths = sorted(folder.glob("*.tar"))
    for _ in range(15):
        path = chance.choice(paths)
        data = path.read_bytes()
        length = chance.choice([0, 512, len(data) - 512, len(data) - 1, chance.randrange(len(data))])
        path.write_bytes(data[:length])
        with pytest.raises(ShardError, match=rf"{path.name}: found {length} bytes, wanted {len(data)}"):
            ShardSet(folder, verify="never")
        assert any(path.name in difference for difference in verify_shards(folder))
        path.write_bytes(data)


def test_a_shard_cut_while_it_is_open_is_found(folder):
    found = ShardSet(folder, verify="never")
    for path in folder.glob("*.tar"):
        with open(path, "r+b") as file:
            file.truncate(700)
    for position in range(len(found)):
        with pytest.raises(ShardError, match=r"class/[0-9]+: found .* bytes, wanted .*: the shard is cut short"):
            found.read(position)


def test_a_missing_and_an_unknown_shard_are_found(folder):
    (folder / "train-000000.tar").rename(folder / "train-000077.tar")
    with pytest.raises(ShardError, match=r"train-000000.tar: is missing, wanted \d+ bytes"):
        ShardSet(folder, verify="never")
    assert [line.split("/")[-1].split(":")[0] for line in verify_shards(folder)] == [
        "train-000077.tar",
        "train-000000.tar",
    ]


def test_swapped_shards_are_found(collection, tmp_path):
    folder = tmp_path / "shards"
    write(collection, folder, max_shard_bytes=30_720)
    sizes = {path: path.stat().st_size for path in sorted(folder.glob("train-*.tar"))}
    pair = next([a, b] for a in sizes for b in sizes if a < b and sizes[a] == sizes[b])
    first, second = (path.read_bytes() for path in pair)
    pair[0].write_bytes(second)
    pair[1].write_bytes(first)
    differences = verify_shards(folder)
    assert {path.name for path in pair} == {line.split(": ")[0].split("/")[-1] for line in differences}


def rewrite_index(folder, *, facts=None, frame=None) -> None:
    path = folder / "index.parquet"
    old_facts, old_frame = read_facts(path), read_table(path, INDEX)
    if facts:
        facts(old_facts)
    write_table(path, [frame(old_frame) if frame else old_frame], INDEX, INDEX_ARROW, old_facts)
    path.with_name("index.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n")


def test_an_index_that_contradicts_itself_is_found(folder):
    good = contents(folder)
    faults = {
        r"train-000000.tar: found \d+ rows, wanted 99": {
            "facts": lambda facts: facts["shards"]["train-000000.tar"].update(num_samples=99)
        },
        "found rows of shards": {"facts": lambda facts: facts["shards"].update({"val-000009.tar": {}})},
        "column shard: found train-000000.tar, wanted one of the facts' shards": {
            "facts": lambda facts: facts["shards"].pop("train-000000.tar")
        },
        r"found facts .*, wanted": {"facts": lambda facts: facts.pop("decode")},
        r"\d+ rows, wanted \d+": {"frame": lambda frame: frame[1:].reset_index(drop=True)},
        "column label: found 3, wanted less than 3": {
            "frame": lambda frame: frame.assign(label=frame["label"].where(frame.index > 0, 3))
        },
        r"train-000000.tar: class/[0-9]+: found offset 1024, wanted 1536$": {
            "frame": lambda frame: frame.assign(offset=frame["offset"].where(frame.index > 0, 1024))
        },
        r"class/[0-9]+: found offset [0-9]+, wanted [0-9]+, where class/[0-9]+ ends": {
            "frame": lambda frame: frame.assign(num_bytes=frame["num_bytes"].where(frame.index > 0, 9000))
        },
        r"class/[0-9]+: found a last sample that makes the shard [0-9]+ bytes, wanted [0-9]+": {
            "frame": lambda frame: frame.assign(num_bytes=frame["num_bytes"].where(frame.index < 47, 90_000))
        },
    }
    for message, change in faults.items():
        rewrite_index(folder, **change)
        with pytest.raises(ContractError, match=message):
            ShardSet(folder, verify="never")
        for name, data in good.items():
            (folder / name).write_bytes(data)
    assert len(ShardSet(folder, verify="never")) == 48


def test_a_changed_index_is_found(folder):
    path = folder / "index.parquet"
    whole = path.read_bytes()
    for place in (5, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ShardError, match=r"index.parquet: found sha256 .*, wanted .* of index.sha256"):
            ShardSet(folder, verify="never")
        assert "index.parquet: found sha256" in verify_shards(folder)[0]
    path.write_bytes(whole[:-20])
    with pytest.raises(ShardError, match=r"index.parquet: found sha256"):
        ShardSet(folder, verify="never")
    path.write_bytes(whole)
    (folder / "index.sha256").unlink()
    with pytest.raises(ShardError, match=r"index.sha256 is missing, wanted the sha256 of index.parquet; write the"):
        ShardSet(folder, verify="never")


def test_what_was_changed_in_an_index_with_the_old_sum_is_named(folder):
    note = (folder / "index.sha256").read_bytes()
    rewrite_index(folder, frame=lambda frame: frame.assign(label=frame["label"].where(frame.index > 0, 2)))
    (folder / "index.sha256").write_bytes(note)
    row = read_table(folder / "index.parquet", INDEX).iloc[0]
    found = verify_shards(folder)
    assert len(found) == 2
    assert found[1].endswith(
        f"{row['shard']}: {row['key']}: the label: found other bytes than the index says; "
        f"found the label b'{int(row['key'][-5:]) % 3}', wanted 2"
    )
