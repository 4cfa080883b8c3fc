"""Our statistics through the function that the stage calls, and the bare loop that bounds them."""

import hashlib
import json
import multiprocessing
from importlib.metadata import version
from pathlib import Path

import resident  # beside this script
import simplejpeg
import torch

from rootstock.data import decode, stats

SHORT_SIDE, CROP_SIZE = 256, 224


def make(spec: dict) -> tuple[dict, object]:
    """Build what `spec["kind"]` names: measure or loop; `spec`: manifest, images, repeats, chunk_size, num_cores."""
    torch.set_num_threads(1)
    about = {
        "versions": {name: version(name) for name in ("numpy", "simplejpeg", "torch")},
        "how": f"{spec['num_cores']} processes",
    }
    if spec["kind"] == "loop":
        pool = multiprocessing.get_context("fork").Pool(spec["num_cores"])
        paths = sorted(map(str, Path(spec["images"]).glob("*/*"))) * spec["repeats"]
        parts = [paths[start :: spec["num_cores"]] for start in range(spec["num_cores"])]
        return about, resident.job(lambda: {"num_images": sum(pool.map(decode_and_resize, parts, chunksize=1))})
    return about, resident.job(lambda: measured(spec))


def measured(spec: dict) -> dict:
    """Measure the statistics once; the digest covers every number of them."""
    found = stats.measure(
        Path(spec["manifest"]),
        locate=lambda name: Path(spec["images"], name),
        short_side=SHORT_SIDE,
        crop_size=CROP_SIZE,
        workers=spec.get("workers", spec["num_cores"]),
        **({"chunk_size": spec["chunk_size"]} if "chunk_size" in spec else {}),
    )
    arrays = (found.image_sums, found.histograms, found.width_counts, found.height_counts)
    text = json.dumps([found.sums, found.channel_mean, found.covariance, found.eigenvalues, found.eigenvectors])
    digest = hashlib.sha256(b"".join([text.encode(), *(array.tobytes() for array in arrays)])).hexdigest()
    return {"num_images": found.num_images, "output": f"sha256 {digest[:12]}…", "digest": digest}


def decode_and_resize(paths: list[str]) -> int:
    """Decode and resize files, and throw the pixels away."""
    torch.set_num_threads(1)
    for path in paths:
        image = simplejpeg.decode_jpeg(Path(path).read_bytes(), colorspace="RGB")
        decode.resize_short(image, short_side=SHORT_SIDE)
    return len(paths)


if __name__ == "__main__":
    resident.serve(make)
