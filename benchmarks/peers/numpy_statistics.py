"""What people write: one pass with Pillow and numpy over float64 pixels, in as many processes as cores."""

import multiprocessing
from pathlib import Path

import numpy as np
import PIL
import resident  # beside this script
from PIL import Image

SHORT_SIDE, CROP_SIZE = 256, 224


def make(spec: dict) -> tuple[dict, object]:
    """Build the script; `spec`: images, repeats, num_cores."""
    pool = multiprocessing.get_context("fork").Pool(spec["num_cores"])
    paths = sorted(map(str, Path(spec["images"]).glob("*/*"))) * spec["repeats"]
    parts = [paths[start :: spec["num_cores"]] for start in range(spec["num_cores"])]

    def work() -> dict:
        sums = [sum(column) for column in zip(*pool.map(one_pass, parts, chunksize=1), strict=True)]
        num_images, total, products, _ = sums
        num_pixels = num_images * CROP_SIZE**2
        mean = total / num_pixels
        covariance = products / num_pixels - np.outer(mean, mean)
        np.linalg.eigh(covariance)
        return {"num_images": num_images, "output": "mean " + " ".join(f"{value:.4f}" for value in mean)}

    about = {"versions": {"numpy": np.__version__, "pillow": PIL.__version__}, "how": f"{spec['num_cores']} processes"}
    return about, resident.job(work)


def one_pass(paths: list[str]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Sum values and products of two channels over the pixels of some files, on the [0, 1] scale."""
    total, products, mean_image = np.zeros(3), np.zeros((3, 3)), np.zeros((CROP_SIZE, CROP_SIZE, 3))
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = SHORT_SIDE / min(image.size)
        wide, high = (max(SHORT_SIDE, round(side * scale)) for side in image.size)
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - CROP_SIZE) // 2, (high - CROP_SIZE) // 2
        pixels = np.asarray(image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))) / 255
        flat = pixels.reshape(-1, 3)
        total += flat.sum(axis=0)
        products += flat.T @ flat
        mean_image += pixels
    return len(paths), total, products, mean_image


if __name__ == "__main__":
    resident.serve(make)
