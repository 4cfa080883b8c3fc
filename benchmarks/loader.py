"""Our loader beside its peers and beside what bounds it: `make bench-peers`, then `python benchmarks/loader.py`.

Tables: training on natural-size files and on a short-side-256 copy, evaluation, scaling with the cost of exactness, and
resumption in mid-epoch. Every contender reads the same bytes from the page cache, on the same cores, with as many
threads or worker processes as cores, in batches of 64 at 224 pixels, from an endless stream; what was prefetched before
the clock starts is consumed first. Writes benchmarks/results/loader.json.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import collection  # beside this script
import gil_share
import record
import rounds
from rounds import Contender

SIZES = {"batch_size": 64, "image_size": 224, "resize_size": 256}
WARM_UP = 8  # batches; the most that any contender holds ready
BASE = "torchvision"
OURS, ANTIALIASED, BARE = "rootstock", "rootstock, antialiased", "bare decode + crop loop"
DALI = "DALI"
TABLES = ("natural", "short256", "evaluation", "scaling", "resume")


def main() -> None:
    """Measure, print the tables, write the results; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds; 7 at least to be quoted")
    parser.add_argument("--batches", type=int, default=24, help="timed batches of 64 a round and contender")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--images", type=Path, default=collection.NATURAL, help="a tar of natural-size JPEGs")
    parser.add_argument("--folder", type=Path, help="where the collections are made and kept; else a temporary one")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    arguments = parser.parse_args()
    if arguments.cores > len(os.sched_getaffinity(0)):
        sys.exit(
            f"--cores: found {arguments.cores}, wanted at most {len(os.sched_getaffinity(0))}, those of this machine"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        figures = measure(arguments, folder)
    figures |= {"load_average_at_start": LOAD, "batches_a_round": arguments.batches, **SIZES}
    if set(arguments.tables) == set(TABLES):
        print(f"wrote {record.write('loader', figures)}")
    sys.exit(1 if any(bar["met"] is False for bar in figures["bars"]) else 0)


LOAD = os.getloadavg()[0]


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    """Run the tables that were asked for."""
    natural = collection.natural(folder, arguments.images)
    small = collection.short(folder, natural)
    order = {"warm_up": WARM_UP, "num_batches": arguments.batches}
    figures: dict = {"tables": {}, "bars": []}

    def table(name: str, title: str, contenders: list[Contender], bars: list, order: dict = order) -> dict:
        results, skipped = rounds.run(contenders, order=order, num_rounds=arguments.rounds)
        base = BASE if BASE in results else next(iter(results))
        figures["tables"][name] = rounds.show(title, results, skipped, base=base)
        figures["bars"] += [{"table": name, **row} for row in rounds.judge(bars, results)]
        return results

    cores = arguments.cores
    if "natural" in arguments.tables:
        table("natural", f"train, natural size, {cores} cores", training(natural, cores), NATURAL_BARS)
    if "short256" in arguments.tables:
        bars = SHORT_BARS
        table("short256", f"train, short side 256, {cores} cores", training(small, cores), bars)
    if "evaluation" in arguments.tables:
        contenders = evaluating(natural, cores)
        table("evaluation", f"evaluation, natural size, {cores} cores", contenders, EVALUATION_BARS)
    if "scaling" in arguments.tables:
        results = table("scaling", "scaling and exactness, natural size", scaling(natural, cores), EXACTNESS_BARS)
        if cores > 1:
            bars = [(f"1 → {cores} cores, of linear", OURS, f"{OURS}, 1 core", 0.92)]
            figures["bars"] += [{"table": "scaling", **row} for row in rounds.judge(bars, results, factor=1 / cores)]
        figures["gil"] = gil_share.measure(
            ours("", natural, 1, kind="train", count_free=True), order, num_rounds=arguments.rounds
        )
    if "resume" in arguments.tables:
        figures["resume"] = resume(natural, cores, num_rounds=arguments.rounds)
        figures["bars"] += figures["resume"].pop("bars")
    return figures


NATURAL_BARS = [
    ("training, natural, against torchvision", OURS, BASE, 2.2),
    ("training, natural, against DALI", OURS, DALI, 1.2),
    ("training antialiased, natural, against torchvision", ANTIALIASED, BASE, 1.9),
    ("loader against its bare loop, natural", OURS, BARE, 0.92),
]
SHORT_BARS = [
    ("training, short 256, against torchvision", OURS, BASE, 3.4),
    ("training, short 256, against DALI", OURS, DALI, 1.7),
    ("training antialiased, short 256, against torchvision", ANTIALIASED, BASE, 2.3),
    ("loader against its bare loop, short 256", OURS, BARE, 0.92),
]
EVALUATION_BARS = [("evaluation, natural, against torchvision", OURS, BASE, 1.8)]
EXACTNESS_BARS = [("verified and keyed against neither", OURS, f"{OURS}, not verified, not keyed", 0.95)]


def ours(suffix: str, files: collection.Collection, cores: int, **spec: object) -> Contender:
    """Describe a contender of ours."""
    return Contender(f"{OURS}{suffix}", "rootstock_loader.py", {"shards": str(files.shards), **SIZES, **spec}, cores)


def bare(name: str, files: collection.Collection, cores: int, **spec: object) -> Contender:
    """Describe a bare loop."""
    return Contender(name, "rootstock_loader.py", {"shards": str(files.shards), **SIZES, **spec}, cores)


def training(files: collection.Collection, cores: int) -> list[Contender]:
    """List who trains on these files."""
    peers = {"images": str(files.images), "shards": str(files.shards), "task": "train", **SIZES}

    def peer(name: str, script: str, environment: str | None, **spec: object) -> Contender:
        return Contender(name, script, peers | spec, cores, environment)

    return [
        peer(BASE, "torchvision_loader.py", None, output="float32"),
        peer("torchvision, uint8", "torchvision_loader.py", None, output="uint8"),
        peer("timm", "timm_loader.py", "timm", prefetcher=False),
        peer("timm, prefetcher", "timm_loader.py", "timm", prefetcher=True),
        peer("webdataset + PIL", "webdataset_loader.py", None),
        peer(DALI, "dali_loader.py", "dali", output="float32", antialias=False),
        peer("DALI, antialiased", "dali_loader.py", "dali", output="float32", antialias=True),
        peer("DALI, uint8", "dali_loader.py", "dali", output="uint8", antialias=False),
        *(
            peer(
                f"FFCV {mode} 500",
                "ffcv_loader.py",
                "ffcv",
                write_mode=mode,
                max_resolution=500,
                file=str(files.folder / f"{mode}.beton"),
            )
            for mode in ("jpg", "raw")
        ),
        ours("", files, cores, kind="train"),
        ours(", antialiased", files, cores, kind="train", antialias=True),
        ours(", not verified", files, cores, kind="train", verify="never"),
        ours(", normalised float32", files, cores, kind="train", normalise=True),
        ours(", antialiased, float32", files, cores, kind="train", antialias=True, normalise=True),
        bare(BARE, files, cores, kind="crop-loop"),
        bare(f"{BARE}, antialiased", files, cores, kind="crop-loop", antialias=True),
        bare("decode only", files, cores, kind="decode-loop"),
    ]


def evaluating(files: collection.Collection, cores: int) -> list[Contender]:
    """List who evaluates on these files: short side 256, central 224."""
    peers = {"images": str(files.images), "shards": str(files.shards), "task": "eval", **SIZES}
    dali = {"output": "float32", "antialias": True}
    return [
        Contender(BASE, "torchvision_loader.py", peers | {"output": "float32"}, cores),
        Contender("timm", "timm_loader.py", peers | {"prefetcher": False}, cores, "timm"),
        Contender("DALI, antialiased", "dali_loader.py", peers | dali, cores, "dali"),
        Contender("DALI, uint8", "dali_loader.py", peers | dali | {"output": "uint8"}, cores, "dali"),
        ours("", files, cores, kind="eval"),
        ours(", normalised float32", files, cores, kind="eval", normalise=True),
        bare("bare decode + resize + crop loop", files, cores, kind="eval-loop"),
    ]


def scaling(files: collection.Collection, cores: int) -> list[Contender]:
    """List ours with one core and with all, and without what exactness costs."""
    torchvision = {"images": str(files.images), "task": "train", "output": "float32", **SIZES}
    return [
        ours("", files, cores, kind="train"),
        ours(", 1 core", files, 1, kind="train"),
        ours(", not verified", files, cores, kind="train", verify="never"),
        ours(", not verified, not keyed", files, cores, kind="train", verify="never", keyed=False),
        bare(BARE, files, cores, kind="crop-loop"),
        bare(f"{BARE}, 1 core", files, 1, kind="crop-loop"),
        Contender(f"{BASE}, 1 core", "torchvision_loader.py", torchvision, 1),
    ]


def resume(files: collection.Collection, cores: int, *, num_rounds: int) -> dict:
    """Stop in mid-epoch and go on, several times: seconds to the first batch, and whether the rest is the same."""
    resident = rounds.Resident(ours("", files, cores, kind="resume"))
    try:
        turns = [resident.measure({}) for _ in range(num_rounds)]
    finally:
        resident.close()
    seconds = [turn["first_batch_seconds"] for turn in turns]
    same = all(turn["same"] for turn in turns)
    print(f"\n### resumption in mid-epoch, {num_rounds} times\n")
    print(f"first batch after {statistics.median(seconds):.3f} s, {max(seconds):.3f} at most;")
    print(f"the {turns[0]['num_batches']} batches from there on are {'' if same else 'NOT '}the same to the bit")
    slowest = {"figure": "seconds to the first batch", "wanted": 1.0, "found": max(seconds), "met": max(seconds) <= 1}
    order = {"figure": "same remaining order and pixels", "wanted": True, "found": same, "met": same}
    bars = [{"table": "resume", **bar} for bar in (slowest, order)]
    return {"first_batch_seconds": rounds.figure(seconds), "same": same, "bars": bars}


if __name__ == "__main__":
    main()
