"""Random faults in shards and their index: what is changed follows from a number, what must be named is known.

python tests/faults/shard_faults.py --number 1000     writes benchmarks/results/shard_faults.json
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import simplejpeg

from rootstock.data import shards
from rootstock.data.shard_set import INDEX_NAME, SUM_NAME, index_sum
from rootstock.data.shards import ShardError, ShardSet, verify_shards
from rootstock.schema.contract import ContractError, read_facts, read_table, write_table
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW
from rootstock.schema.shards import INDEX, INDEX_ARROW

BLOCK = 512
HEAD = 3 * BLOCK  # the label's header, the label, the image's header


class Fault(NamedTuple):
    """What was changed, and what a finding must name: each text in the same line as its file."""

    kind: str
    named: list[tuple[str, str]]  # (file, key or "")


class Finding(NamedTuple):
    """How a fault was found."""

    fault: Fault
    by_reading: bool  # opening the set and reading every image with verify="always"
    by_verify: bool
    is_named: bool  # by verify_shards, in every way the fault asks for
    text: str


def plant(folder: Path, *, seed: int, num_images: int = 90) -> None:
    """Write a small collection and its shards into `folder`/shards."""
    rng = np.random.default_rng(seed)
    rows, offset = [], 0
    with open(folder / "images.bin", "wb") as archive:
        for number in range(num_images):
            height, width = rng.integers(24, 56, 2)
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            data = simplejpeg.encode_jpeg(pixels, quality=int(rng.integers(40, 95)))
            archive.write(data)
            split = ("train", "train", "train", "val", "test")[number % 5]
            rows.append(
                {
                    "key": f"class-{number % 3}/image_{number:04d}",
                    "split": split,
                    "label": number % 3 + 9,  # of one and of two digits
                    "archive": "images.bin",
                    "offset": offset,
                    "num_bytes": len(data),
                    "format": "jpeg",
                    "width": int(width),
                    "height": int(height),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "gate": split == "val" and number % 2 == 0,
                }
            )
            offset += len(data)
    frame = pd.DataFrame(rows).astype({"label": "int32", "width": "int32", "height": "int32"})
    facts = {
        "collection": "planted",
        "class_names": [f"class {label}" for label in range(12)],
        "decode": {"backend": "simplejpeg", "max_pixels": 10**6},
    }
    write_table(folder / "manifest.parquet", [frame], MANIFEST, MANIFEST_ARROW, facts)
    shards.write(
        folder / "manifest.parquet",
        locate=folder.joinpath,
        folder=folder / "shards",
        short_side=None,
        quality=90,
        max_shard_bytes=51_200,
        seed=seed,
        workers=1,
    )


class Victim:
    """A set of shards that is broken and mended again.

    Attributes:
        rows: the index.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self.rows = read_table(folder / INDEX_NAME, INDEX)
        self.facts = read_facts(folder / INDEX_NAME)
        self.names = sorted(self.facts["shards"])

    def mend(self) -> None:
        """Bring every file back."""
        for path in self.folder.iterdir():
            if path.name not in self.whole:
                path.unlink()
        for name, data in self.whole.items():
            path = self.folder / name
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    def samples(self, name: str) -> list[dict]:
        """A shard's rows, each with `start` and `end` of the bytes that belong to its key."""
        rows = self.rows[self.rows["shard"] == name].sort_values("offset").to_dict("records")
        for row in rows:
            row["start"] = row["offset"] - HEAD
            row["end"] = row["offset"] + -(-row["num_bytes"] // BLOCK) * BLOCK
        return rows

    def owners(self, name: str, places: list[int]) -> list[tuple[str, str]]:
        """Whose bytes lie at these places: (shard, key), the key empty behind the last sample."""
        found = set()
        for place in places:
            keys = [row["key"] for row in self.samples(name) if row["start"] <= place < row["end"]]
            found.add((name, keys[0] if keys else ""))
        keyed = {owner for owner in found if owner[1]}
        return sorted(keyed or found)  # beside a named sample, the end of the archive need not be told as well

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def put_index(self, chance: random.Random, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Rewrite the index with other rows and the same facts; every other time with a sum that fits."""
        (self.folder / INDEX_NAME).unlink()
        frame = change(self.rows.copy()).reset_index(drop=True)
        write_table(self.folder / INDEX_NAME, [frame], INDEX, INDEX_ARROW, self.facts)
        if chance.random() < 0.5:
            self.put(SUM_NAME, index_sum(self.folder / INDEX_NAME))


# ------------------------------------------------------------------------------------------------------ bits and blocks


def _flip(victim: Victim, name: str, chance: random.Random, places: list[int], kind: str) -> Fault:
    data = bytearray(victim.whole[name])
    for place in places:
        data[place] ^= 1 << chance.randrange(8)
    victim.put(name, bytes(data))
    return Fault(kind, victim.owners(name, places))


def _flip_in(part: str, low: Callable[[dict], int], high: Callable[[dict], int]):
    def fault(victim: Victim, chance: random.Random) -> Fault:
        name = chance.choice(victim.names)
        rows = [row for row in victim.samples(name) if high(row) > low(row)]
        row = chance.choice(rows)
        return _flip(victim, name, chance, [chance.randrange(low(row), high(row))], f"bit flipped in {part}")

    return fault


def flip_end(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    places = [chance.randrange(victim.samples(name)[-1]["end"], len(victim.whole[name]))]
    return _flip(victim, name, chance, places, "bit flipped behind the last sample")


def flip_many(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    places = chance.sample(range(len(victim.whole[name])), chance.randrange(2, 9))
    return _flip(victim, name, chance, places, "2 to 8 bits flipped anywhere")


def _changed_places(old: bytes, new: bytes) -> list[int]:
    assert len(old) == len(new)
    return np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)).tolist()


def _overwrite(victim: Victim, name: str, place: int, new: bytes, kind: str) -> Fault | None:
    old = victim.whole[name]
    data = old[:place] + new + old[place + len(new) :]
    changed = _changed_places(old, data)
    if not changed:
        return None
    victim.put(name, data)
    return Fault(kind, victim.owners(name, changed))


def zero_block(victim: Victim, chance: random.Random) -> Fault | None:
    name = chance.choice(victim.names)
    size = chance.choice([BLOCK, 4096])
    place = chance.randrange(len(victim.whole[name]) // size) * size
    return _overwrite(victim, name, place, bytes(size), "block zeroed")


def stale_block(victim: Victim, chance: random.Random) -> Fault | None:
    name, other = chance.choice(victim.names), chance.choice(victim.names)
    blocks = [chance.randrange(len(victim.whole[at]) // BLOCK) * BLOCK for at in (name, other)]
    block = victim.whole[other][blocks[1] : blocks[1] + BLOCK]
    return _overwrite(victim, name, blocks[0], block, "block written to the wrong place")


# ----------------------------------------------------------------------------------------------------------------- cuts


def cut_anywhere(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    length = chance.randrange(len(victim.whole[name]))
    victim.put(name, victim.whole[name][:length])
    return Fault("cut at any byte", victim.owners(name, [length]))


def cut_at_member(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    row = chance.choice(victim.samples(name))
    length = chance.choice([row["start"], row["start"] + 2 * BLOCK, row["end"]])
    victim.put(name, victim.whole[name][:length])
    return Fault("cut at the boundary of a member", victim.owners(name, [length]))


def cut_and_closed(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    row = chance.choice(victim.samples(name))
    victim.put(name, victim.whole[name][: row["start"]] + bytes(10240 - row["start"] % 10240))
    lost = [other["key"] for other in victim.samples(name) if other["start"] >= row["start"]]
    return Fault("last samples dropped, archive closed again", [(name, key) for key in lost[:10]])


def grown(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    victim.put(name, victim.whole[name] + chance.randbytes(chance.randrange(1, 3000)))
    return Fault("bytes appended", [(name, "")])


# -------------------------------------------------------------------------------------------------------------- members


def _two(victim: Victim, chance: random.Random, same: Callable[[dict], object]) -> tuple[str, dict, dict] | None:
    """Two samples of a shard for which `same` is equal, the earlier first."""
    name = chance.choice(victim.names)
    rows = victim.samples(name)
    pairs = [(a, b) for a in rows for b in rows if a["start"] < b["start"] and same(a) == same(b)]
    return (name, *chance.choice(pairs)) if pairs else None


def swap_samples(victim: Victim, chance: random.Random) -> Fault | None:
    name, a, b = _two(victim, chance, lambda row: None)
    old = victim.whole[name]
    one, two = old[a["start"] : a["end"]], old[b["start"] : b["end"]]
    victim.put(name, old[: a["start"]] + two + old[a["end"] : b["start"]] + one + old[b["end"] :])
    return Fault("two samples swapped", [(name, a["key"]), (name, b["key"])])


def swap_images(victim: Victim, chance: random.Random) -> Fault | None:
    found = _two(victim, chance, lambda row: row["end"] - row["start"])
    if found is None:
        return None
    name, a, b = found
    old = victim.whole[name]
    one, two = old[a["offset"] : a["end"]], old[b["offset"] : b["end"]]
    victim.put(name, old[: a["offset"]] + two + old[a["end"] : b["offset"]] + one + old[b["end"] :])
    return Fault("two images of one size swapped under their headers", [(name, a["key"]), (name, b["key"])])


def swap_labels(victim: Victim, chance: random.Random) -> Fault | None:
    name, a, b = _two(victim, chance, lambda row: None)
    old = victim.whole[name]
    one, two = (old[row["start"] : row["start"] + 2 * BLOCK] for row in (a, b))
    between = old[a["start"] + 2 * BLOCK : b["start"]]
    victim.put(name, old[: a["start"]] + two + between + one + old[b["start"] + 2 * BLOCK :])
    return Fault("two labels swapped with their headers", [(name, a["key"]), (name, b["key"])])


def double_sample(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    row, place = chance.choice(victim.samples(name)), chance.choice(victim.samples(name))["end"]
    old = victim.whole[name]
    victim.put(name, old[:place] + old[row["start"] : row["end"]] + old[place:])
    return Fault("sample doubled", [(name, row["key"])])


def double_over(victim: Victim, chance: random.Random) -> Fault | None:
    found = _two(victim, chance, lambda row: row["end"] - row["start"])
    if found is None:
        return None
    name, a, b = found
    if chance.random() < 0.5:
        a, b = b, a
    old = victim.whole[name]
    victim.put(name, old[: b["start"]] + old[a["start"] : a["end"]] + old[b["end"] :])
    return Fault("sample doubled over another", [(name, a["key"]), (name, b["key"])])


def delete_sample(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    row = chance.choice(victim.samples(name))
    old = victim.whole[name]
    keeps_size = chance.random() < 0.5
    filler = bytes(row["end"] - row["start"]) if keeps_size else b""
    victim.put(name, old[: row["start"]] + old[row["end"] :] + filler)
    return Fault(f"sample deleted, size {'kept' if keeps_size else 'smaller'}", [(name, row["key"])])


def delete_label(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    row = chance.choice(victim.samples(name))
    old = victim.whole[name]
    victim.put(name, old[: row["start"]] + old[row["start"] + 2 * BLOCK :] + bytes(2 * BLOCK))
    return Fault("label deleted, size kept", [(name, row["key"])])


# --------------------------------------------------------------------------------------------------------------- shards


def delete_shard(victim: Victim, chance: random.Random) -> Fault:
    name = chance.choice(victim.names)
    (victim.folder / name).unlink()
    return Fault("shard deleted", [(name, "")])


def rename_shard(victim: Victim, chance: random.Random) -> Fault:
    name, other = chance.choice(victim.names), f"train-{chance.randrange(100, 10**6):06d}.tar"
    (victim.folder / name).rename(victim.folder / other)
    return Fault("shard renamed", [(name, ""), (other, "")])


def swap_shards(victim: Victim, chance: random.Random) -> Fault:
    one, two = chance.sample(victim.names, 2)
    victim.put(one, victim.whole[two])
    victim.put(two, victim.whole[one])
    return Fault("two shards swapped", [(one, ""), (two, "")])


def double_shard(victim: Victim, chance: random.Random) -> Fault:
    one, two = chance.sample(victim.names, 2)
    victim.put(one, victim.whole[two])
    return Fault("shard doubled over another", [(one, "")])


def add_shard(victim: Victim, chance: random.Random) -> Fault:
    other = f"val-{chance.randrange(100, 10**6):06d}.tar"
    victim.put(other, victim.whole[chance.choice(victim.names)])
    return Fault("shard doubled under a new name", [(other, "")])


# ---------------------------------------------------------------------------------------------------------------- index


def _edit(column: str, new: Callable[[dict, random.Random, Victim], object]):
    def fault(victim: Victim, chance: random.Random) -> Fault:
        number = chance.randrange(len(victim.rows))
        row = victim.rows.iloc[number].to_dict()
        value = new(row, chance, victim)
        assert value != row[column]

        def change(frame: pd.DataFrame) -> pd.DataFrame:
            frame.loc[number, column] = value
            return frame

        victim.put_index(chance, change)
        return Fault(f"index: {column} of a row changed", [(row["shard"], row["key"])])

    return fault


def _another_shard(row: dict, chance: random.Random, victim: Victim) -> str:
    return chance.choice([name for name in victim.names if name != row["shard"] and name.startswith(row["split"])])


def _another_sum(row: dict, chance: random.Random, victim: Victim) -> str:
    place = chance.randrange(64)
    digit = chance.choice([digit for digit in "0123456789abcdef" if digit != row["sha256"][place]])
    return row["sha256"][:place] + digit + row["sha256"][place + 1 :]


def drop_row(victim: Victim, chance: random.Random) -> Fault:
    number = chance.randrange(len(victim.rows))
    victim.put_index(chance, lambda frame: frame.drop(index=number))
    return Fault("index: row deleted", [(victim.rows["shard"][number], victim.rows["key"][number])])


def swap_row_labels(victim: Victim, chance: random.Random) -> Fault:
    one, two = chance.choice(
        [(a, b) for a in range(30) for b in range(30) if victim.rows["label"][a] != victim.rows["label"][b]]
    )

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[[one, two], "label"] = frame.loc[[two, one], "label"].to_numpy()
        return frame

    victim.put_index(chance, change)
    return Fault(
        "index: labels of two rows swapped", [tuple(victim.rows.loc[at, ["shard", "key"]]) for at in (one, two)]
    )


def swap_row_places(victim: Victim, chance: random.Random) -> Fault:
    one, two = chance.sample(range(len(victim.rows)), 2)
    columns = ["offset", "num_bytes", "sha256"]

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[[one, two], columns] = frame.loc[[two, one], columns].to_numpy()
        return frame

    victim.put_index(chance, change)
    return Fault(
        "index: places of two rows swapped", [tuple(victim.rows.loc[at, ["shard", "key"]]) for at in (one, two)]
    )


def flip_index(victim: Victim, chance: random.Random) -> Fault:
    data = bytearray(victim.whole[INDEX_NAME])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    victim.put(INDEX_NAME, bytes(data))
    return Fault("index: bit flipped", [(INDEX_NAME, "")])


def flip_sum(victim: Victim, chance: random.Random) -> Fault:
    data = bytearray(victim.whole[SUM_NAME])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    victim.put(SUM_NAME, bytes(data))
    return Fault("index: bit flipped in its sum", [(SUM_NAME, "")])


def cut_index(victim: Victim, chance: random.Random) -> Fault:
    victim.put(INDEX_NAME, victim.whole[INDEX_NAME][: chance.randrange(len(victim.whole[INDEX_NAME]))])
    return Fault("index: cut", [(INDEX_NAME, "")])


def delete_index(victim: Victim, chance: random.Random) -> Fault:
    (victim.folder / INDEX_NAME).unlink()
    return Fault("index: deleted", [(INDEX_NAME, "")])


FAULTS: list[Callable[[Victim, random.Random], Fault | None]] = [
    _flip_in("an image", lambda row: row["offset"], lambda row: row["offset"] + row["num_bytes"]),
    _flip_in("an image's header", lambda row: row["offset"] - BLOCK, lambda row: row["offset"]),
    _flip_in("a label's header", lambda row: row["start"], lambda row: row["start"] + BLOCK),
    _flip_in("a label", lambda row: row["start"] + BLOCK, lambda row: row["start"] + 2 * BLOCK),
    _flip_in("the padding", lambda row: row["offset"] + row["num_bytes"], lambda row: row["end"]),
    flip_end,
    flip_many,
    zero_block,
    stale_block,
    cut_anywhere,
    cut_at_member,
    cut_and_closed,
    grown,
    swap_samples,
    swap_images,
    swap_labels,
    double_sample,
    double_over,
    delete_sample,
    delete_label,
    delete_shard,
    rename_shard,
    swap_shards,
    double_shard,
    add_shard,
    _edit("offset", lambda row, chance, victim: max(512, row["offset"] + chance.choice([-512, 512, 1, -1, 4096]))),
    _edit("num_bytes", lambda row, chance, victim: max(1, row["num_bytes"] + chance.choice([-1, 1, 512, -600, 10**6]))),
    _edit("label", lambda row, chance, victim: (row["label"] + chance.randrange(1, 12)) % 12),
    _edit("key", lambda row, chance, victim: f"class-9/{chance.randrange(10**6)}"),
    _edit("shard", _another_shard),
    _edit("sha256", _another_sum),
    _edit("format", lambda row, chance, victim: chance.choice(["png", "webp"])),
    drop_row,
    swap_row_labels,
    swap_row_places,
    flip_index,
    flip_sum,
    cut_index,
    delete_index,
]


# ----------------------------------------------------------------------------------------------------------- the search


def find(victim: Victim, fault: Fault) -> Finding:
    """Look for a fault that was just made, both ways."""
    try:
        with ShardSet(victim.folder, verify="always") as found:
            for position in range(len(found)):
                found.read(position)
        by_reading = False
    except (ShardError, ContractError):
        by_reading = True
    try:
        lines = verify_shards(victim.folder)
    except (ShardError, ContractError) as error:
        lines = [str(error)]
    is_named = all(any(file in line and key in line for line in lines) for file, key in fault.named)
    return Finding(fault, by_reading, bool(lines), is_named, "\n".join(lines))


def run(folder: Path, *, number: int, seed: int) -> list[Finding]:
    """Make, find and mend `number` faults, the kinds in turn."""
    plant(folder, seed=seed)
    victim = Victim(folder / "shards")
    findings = []
    for place in range(number):
        chance = random.Random(f"{seed} {place}")
        fault = None
        while fault is None:  # this shard had no two samples of one size, or the block was zeros already
            fault = FAULTS[place % len(FAULTS)](victim, chance)
        findings.append(find(victim, fault))
        victim.mend()
    assert verify_shards(victim.folder) == []
    return findings


def false_alarms(folder: Path, *, number: int) -> int:
    """How many of `number` unchanged sets are not found whole."""
    alarms = 0
    for seed in range(number):
        (folder / str(seed)).mkdir()
        plant(folder / str(seed), seed=seed, num_images=20 + 7 * seed)
        nothing = Fault("nothing", [])
        finding = find(Victim(folder / str(seed) / "shards"), nothing)
        alarms += finding.by_reading or finding.by_verify
        shutil.rmtree(folder / str(seed))
    return alarms


def main() -> None:
    """Print a table by kind, write the results; exit 1 when a fault is not found or not named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.fsync = lambda descriptor: None  # power cuts are not what is tried here
    with tempfile.TemporaryDirectory() as folder:
        findings = run(Path(folder), number=arguments.number, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        num_unchanged = 24
        alarms = false_alarms(Path(folder), number=num_unchanged)
    rows = []
    for kind in dict.fromkeys(finding.fault.kind for finding in findings):
        these = [finding for finding in findings if finding.fault.kind == kind]
        counts = Counter()
        for finding in these:
            counts.update(found=finding.by_verify, named=finding.is_named, by_reading=finding.by_reading)
        rows.append({"kind": kind, "number": len(these), **counts})
        print("{kind:<60}{number:>6}{found:>6}{named:>6}{by_reading:>6}".format(**rows[-1]))
    for finding in findings:
        if not (finding.by_verify and finding.is_named):
            print(f"NOT {'NAMED' if finding.by_verify else 'FOUND'}: {finding.fault}: {finding.text[:1000]}")
    total = {name: sum(row[name] for row in rows) for name in ("number", "found", "named", "by_reading")}
    print(f"{total}; false alarms: {alarms} of {num_unchanged} unchanged sets")
    figures = {"rows": rows, "total": total, "seed": arguments.seed}
    figures |= {"num_unchanged_sets": num_unchanged, "num_false_alarms": alarms}
    import record  # here only: benchmarks/ is on the path of the long run alone

    print(f"wrote {record.write('shard_faults', figures)}")
    sys.exit(not (total["number"] == total["found"] == total["named"] and alarms == 0))


if __name__ == "__main__":
    main()
