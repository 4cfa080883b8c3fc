"""Our statistics beside a numpy script and a bare decode + resize loop: `python benchmarks/stats.py`.

Each round is a whole job over the same files, each image several times so that it lasts; our time includes starting the
worker processes, the peers' are kept. Then the same numbers from 1, 2 and 5 workers and other chunks, compared to the
bit. Writes benchmarks/results/stats.json.
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

OURS, LOOP, NUMPY = "rootstock", "bare decode + resize loop", "numpy one pass + Pillow"


def main() -> None:
    """Measure, print the table, write the results; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds; 7 at least to be quoted")
    parser.add_argument("--repeats", type=int, default=16, help="times that each image is measured")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--images", type=Path, default=collection.NATURAL, help="a tar of natural-size JPEGs")
    parser.add_argument("--folder", type=Path, help="where the collection is made and kept; else a temporary one")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        files = collection.natural(arguments.folder or Path(temporary), arguments.images)
        path = Path(temporary, "manifest.parquet")
        collection.describe(files, path, repeats=arguments.repeats)
        spec = {"manifest": str(path), "images": str(files.images), "repeats": arguments.repeats}
        figures = measure(arguments, spec)
        figures["identity"] = identity(spec)
    figures["load_average_at_start"] = load
    print(f"wrote {record.write('stats', figures)}")
    sys.exit(0 if figures["identity"]["same"] and all(bar["met"] for bar in figures["bars"]) else 1)


def measure(arguments: argparse.Namespace, spec: dict) -> dict:
    """Compare the speeds."""
    cores = arguments.cores
    contenders = [
        Contender(NUMPY, "numpy_statistics.py", spec, cores),
        Contender(OURS, "rootstock_statistics.py", spec | {"kind": "measure"}, cores),
        Contender(f"{OURS}, 1 worker on 1 core", "rootstock_statistics.py", spec | {"kind": "measure"}, 1),
        Contender(LOOP, "rootstock_statistics.py", spec | {"kind": "loop"}, cores),
        Contender(f"{LOOP}, 1 core", "rootstock_statistics.py", spec | {"kind": "loop"}, 1),
    ]
    results, skipped = rounds.run(contenders, order={}, num_rounds=arguments.rounds)
    rows = rounds.show(f"statistics, natural size, {cores} cores", results, skipped, base=NUMPY)
    bars = [
        ("statistics against the bare loop", OURS, LOOP, 0.78),
        ("statistics against numpy", OURS, NUMPY, 2.0),
    ]
    return {"table": rows, "bars": rounds.judge(bars, results)}


def identity(spec: dict) -> dict:
    """Compare the digests of 1, 2 and 5 workers, and of chunks of 37 images: another order of additions."""
    digests = {}
    for workers, chunk_size in ((1, 256), (2, 256), (5, 256), (2, 37)):
        script = "rootstock_statistics.py"
        options = spec | {"kind": "measure", "workers": workers, "chunk_size": chunk_size}
        resident = rounds.Resident(Contender("identity", script, options, len(os.sched_getaffinity(0))))
        try:
            digests[f"{workers} workers, chunks of {chunk_size}"] = resident.measure({})["digest"]
        finally:
            resident.close()
    same = len(set(digests.values())) == 1
    print(f"\n{', '.join(digests)}: {'the same to the bit' if same else 'NOT the same'}")
    return {"same": same, "digests": digests}


if __name__ == "__main__":
    main()
