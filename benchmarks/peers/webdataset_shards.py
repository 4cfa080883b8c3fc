"""webdataset's ShardWriter: the files' bytes as they are, or through img2dataset's resizer; one writer a process."""

import io
import multiprocessing
import shutil
from importlib.metadata import version
from pathlib import Path

import resident  # beside this script
import webdataset


def make(spec: dict) -> tuple[dict, object]:
    """Build the job; `spec`: images, repeats, out, short_side, quality, max_shard_bytes, num_cores."""
    pool = multiprocessing.get_context("fork").Pool(spec["num_cores"])
    files = sorted(Path(spec["images"]).glob("*/*"))
    labels = {path.parent.name: label for label, path in enumerate(files)}
    tasks = [
        (f"{turn:03d}-{path.parent.name.replace('.', '-')}", str(path), labels[path.parent.name])
        for turn in range(spec["repeats"])
        for path in files
    ]
    parts = [(part, tasks[part :: spec["num_cores"]], spec) for part in range(spec["num_cores"])]

    def work() -> dict:
        Path(spec["out"]).mkdir(parents=True)
        pool.starmap(write, parts, chunksize=1)
        tars = list(Path(spec["out"]).glob("*.tar"))
        num_bytes = sum(path.stat().st_size for path in tars)
        return {"num_images": len(tasks), "output": f"{len(tars)} shards, {num_bytes / 1e6:.0f} MB"}

    def measure() -> dict:
        shutil.rmtree(spec["out"], ignore_errors=True)
        return resident.job(work)()

    names = ["webdataset", *(["img2dataset", "opencv-python-headless"] if spec["short_side"] else [])]
    about = {
        "versions": {name: version(name) for name in names},
        "how": f"{spec['num_cores']} processes, kept; no sums, no fsync" + ("; cv2 area" if spec["short_side"] else ""),
    }
    return about, measure


def write(part: int, tasks: list[tuple[str, str, int]], spec: dict) -> None:
    """Write a part of the images into shards of its own."""
    resize = None
    if spec["short_side"]:
        from img2dataset.resizer import Resizer

        resize = Resizer(
            image_size=spec["short_side"],
            resize_mode="keep_ratio",
            resize_only_if_bigger=True,
            encode_quality=spec["quality"],
            encode_format="jpg",
            skip_reencode=True,
        )
    pattern = f"{spec['out']}/part{part}-%06d.tar"
    with webdataset.ShardWriter(pattern, maxsize=spec["max_shard_bytes"], maxcount=10**9, verbose=0) as writer:
        for key, path, label in tasks:
            data = Path(path).read_bytes()
            if resize:
                data, *_, error = resize(io.BytesIO(data))
                if error:
                    raise ValueError(f"{path}: {error}")
            writer.write({"__key__": key, "jpg": data, "cls": label})


if __name__ == "__main__":
    resident.serve(make)
