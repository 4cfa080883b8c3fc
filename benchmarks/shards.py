"""Our sharder beside webdataset's ShardWriter and img2dataset's resizer: `python benchmarks/shards.py`.

Each round is a whole job over the same loose files, each image several times, written to memory where there is a
/dev/shm (else to a temporary folder): what is compared is the work, not the disk. Our time includes starting worker
processes and fsync; the peers' processes are kept. Writes benchmarks/results/shards.json.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import collection  # beside this script
import record
import rounds
from rounds import Contender

OURS, WRITER, RESIZER = "rootstock", "webdataset ShardWriter", "img2dataset resizer + ShardWriter"
MAX_SHARD_BYTES = 64 << 20
SHARED_MEMORY = Path("/dev/shm")


def main() -> None:
    """Measure, print the tables, write the results; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds; 7 at least to be quoted")
    parser.add_argument("--repeats", type=int, default=32, help="times that each image is written as it is")
    parser.add_argument("--resized-repeats", type=int, default=8, help="times that each image is resized and written")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--images", type=Path, default=collection.NATURAL, help="a tar of natural-size JPEGs")
    parser.add_argument("--folder", type=Path, help="where the collection is made and kept; else a temporary one")
    parser.add_argument("--out", type=Path, default=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
    arguments = parser.parse_args()
    figures: dict = {"load_average_at_start": os.getloadavg()[0], "out": str(arguments.out), "bars": []}
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory(dir=arguments.out) as out:
        files = collection.natural(arguments.folder or Path(temporary), arguments.images)
        for name, short_side, repeats in (
            ("raw", None, arguments.repeats),
            ("resized", collection.SHORT_SIDE, arguments.resized_repeats),
        ):
            manifest = Path(temporary, f"{name}.parquet")
            collection.describe(files, manifest, repeats=repeats)
            spec = {
                "manifest": str(manifest),
                "images": str(files.images),
                "repeats": repeats,
                "num_images": repeats * len(files.paths()),
                "short_side": short_side,
                "quality": collection.QUALITY,
                "max_shard_bytes": MAX_SHARD_BYTES,
            }
            contenders, bars = CONTENDERS[name](spec, out, arguments.cores)
            results, skipped = rounds.run(contenders, order={}, num_rounds=arguments.rounds)
            base = next(iter(results))
            title = f"sharding, {name}, natural size, {arguments.cores} cores"
            figures[name] = rounds.show(title, results, skipped, base=base)
            figures["bars"] += rounds.judge(bars, results)
    print(f"wrote {record.write('shards', figures)}")
    sys.exit(1 if any(bar["met"] is False for bar in figures["bars"]) else 0)


def raw(spec: dict, out: str, cores: int) -> tuple[list[Contender], list]:
    """List who writes the files' bytes as they are, and the bar."""
    contenders = []
    for suffix, number in (("", cores), (", 1 core", 1)):
        for name, script in ((WRITER, "webdataset_shards.py"), (OURS, "rootstock_shards.py")):
            options = spec | {"out": f"{out}/{script}{number}"}
            contenders.append(Contender(f"{name}{suffix}", script, options, number))
    bars = [
        ("raw with sha256 against webdataset without", OURS, WRITER, 2.0),
        ("the same, 1 core", f"{OURS}, 1 core", f"{WRITER}, 1 core", 2.0),
    ]
    return contenders, bars


def resized(spec: dict, out: str, cores: int) -> tuple[list[Contender], list]:
    """List who shrinks the files on the way, and the bar."""
    contenders = [
        Contender(RESIZER, "webdataset_shards.py", spec | {"out": f"{out}/peer"}, cores, "img2dataset"),
        Contender(OURS, "rootstock_shards.py", spec | {"out": f"{out}/ours"}, cores),
    ]
    return contenders, [("short side 256 against img2dataset's resizer", OURS, RESIZER, 1.15)]


CONTENDERS = {"raw": raw, "resized": resized}

if __name__ == "__main__":
    main()
