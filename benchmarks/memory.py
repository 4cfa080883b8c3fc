"""Peak memory of manifest, stats and shards for 1 000, 10 000 and 30 000 images: it must not grow with their number.

    python benchmarks/memory.py

Each stage runs in a process of its own, as in the pipeline. Its memory is the sum over itself and its workers of the
proportional set size (shared pages counted once), looked at 20 times a second; the table shows the largest sum.
Writes benchmarks/results/memory.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import record  # beside this script
import simplejpeg

from rootstock.data.parallel import num_workers

COUNTS = (1_000, 10_000, 30_000)
STAGES = ("manifest", "stats", "shards")
NUM_CLASSES = 10
IMAGE_SIZE = 96  # pixels
MAX_BYTES = 1 << 30  # the bar
MAX_GROWTH_BYTES = 100 << 20  # from the fewest to the most images; a few hundred bytes an image are 10 MB


def main() -> None:
    """Measure, print the table, write the results; exit 1 above the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help="run one stage (what this script does in its child processes)")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder)
        return
    rows = []
    for num_images in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), num_images)
            for stage in STAGES:
                rows.append({"stage": stage, "num_images": num_images, **watch(stage, Path(folder))})
                print(
                    "{stage:<10}{num_images:>8} images {peak_bytes:>14,} bytes {wall_seconds:>8.1f} s".format(
                        **rows[-1]
                    )
                )
    figures = {"bar_bytes": MAX_BYTES, "num_runs": 1, "num_workers": num_workers(), "rows": rows}
    print(f"wrote {record.write('memory', figures)}")
    sys.exit(1 if above_bar(rows) else 0)


def above_bar(rows: list[dict]) -> bool:
    """Print what is above the bar and tell whether anything is."""
    failures = [f"{row['stage']} at {row['num_images']} images" for row in rows if row["peak_bytes"] > MAX_BYTES]
    for stage in STAGES:
        peaks = [row["peak_bytes"] for row in rows if row["stage"] == stage]
        if peaks[-1] - peaks[0] > MAX_GROWTH_BYTES:
            failures.append(f"{stage} grows by {peaks[-1] - peaks[0]:,} bytes")
    print(f"above the bar: {', '.join(failures)}" if failures else "flat, and below 1 GiB")
    return bool(failures)


def watch(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in a process and return the largest memory of its process tree."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, __file__, "--stage", stage, "--folder", folder], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    peak = 0
    while child.poll() is None:
        peak = max(peak, tree_bytes(child.pid))
        time.sleep(0.05)
    if child.returncode:
        sys.exit(f"{stage} failed with {child.returncode}")
    return {"peak_bytes": peak, "wall_seconds": round(time.monotonic() - start, 1)}


def tree_bytes(pid: int) -> int:
    """Return the proportional set size of a process and all its descendants."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue  # it ended between the listing and the look
    return total


def generate(folder: Path, num_images: int) -> None:
    """Write JPEGs one behind the other into one archive, and a table of where they lie."""
    rng = np.random.default_rng(0)
    places = []
    with open(folder / "images.bin", "wb") as archive:
        for _ in range(num_images):
            coarse = rng.integers(0, 256, (12, 12, 3), np.uint8)
            image_HWC = np.ascontiguousarray(coarse.repeat(IMAGE_SIZE // 12, 0).repeat(IMAGE_SIZE // 12, 1))
            data = simplejpeg.encode_jpeg(image_HWC, quality=85)
            places.append((archive.tell(), len(data)))
            archive.write(data)
    np.save(folder / "places.npy", np.array(places))


def run_stage(stage: str, folder: Path) -> None:
    """Run one stage on the generated images."""
    locate = folder.joinpath
    if stage == "manifest":
        from rootstock.data import manifest

        manifest.build(
            records(folder),
            locate=locate,
            class_names=[f"class {label}" for label in range(NUM_CLASSES)],
            collection="generated",
            backend="simplejpeg",
            max_pixels=10**6,
            split_seed=0,
            gate_fraction=0.5,
            max_reject_fraction=0.0,
            drop_duplicates="none",
            near_radius=11,
            manifest=folder / "manifest.parquet",
            rejects=folder / "rejects.parquet",
            duplicates=folder / "duplicates.parquet",
            workers=num_workers(),
        )
    elif stage == "stats":
        from rootstock.data import stats

        stats.measure(folder / "manifest.parquet", locate=locate, short_side=64, crop_size=64, workers=num_workers())
    else:
        from rootstock.data import shards

        shards.write(
            folder / "manifest.parquet",
            locate=locate,
            folder=folder / "shards",
            short_side=64,
            quality=90,
            max_shard_bytes=16 << 20,
            seed=0,
            workers=num_workers(),
        )


def records(folder: Path) -> Iterator:
    """Yield the generated images' records, a tenth of them in val."""
    from rootstock.data.sources.record import Record

    for number, (offset, num_bytes) in enumerate(np.load(folder / "places.npy").tolist()):
        split = "val" if number % 10 == 9 else "train"
        label = number // 10 % NUM_CLASSES
        yield Record(f"class{label}/{number:06d}", split, label, "images.bin", offset, num_bytes)


if __name__ == "__main__":
    main()
