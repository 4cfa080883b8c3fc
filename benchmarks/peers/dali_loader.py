"""NVIDIA DALI on the CPU: its webdataset reader, fused decode and random crop, resize, normalise."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import nvidia.dali
import resident  # beside this script
from nvidia.dali import fn, pipeline_def, types

MEAN, STD = [0.485 * 255, 0.456 * 255, 0.406 * 255], [0.229 * 255, 0.224 * 255, 0.225 * 255]
READ_AHEAD = 256  # samples, of the random reading order


@pipeline_def
def pipeline(spec: dict, paths: list[str]) -> object:
    """Describe the graph: NVIDIA's ImageNet example, on the CPU."""
    is_training, size = spec["task"] == "train", spec["image_size"]
    encoded, _ = fn.readers.webdataset(
        paths=paths,
        ext=["jpg", "cls"],
        random_shuffle=is_training,
        initial_fill=READ_AHEAD,
        name="reader",
    )
    if is_training:
        images = fn.decoders.image_random_crop(
            encoded, output_type=types.RGB, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images = fn.resize(
            images, resize_x=size, resize_y=size, interp_type=types.INTERP_LINEAR, antialias=spec["antialias"]
        )
        mirror = fn.random.coin_flip(probability=0.5)
    else:
        images = fn.decoders.image(encoded, output_type=types.RGB)
        images = fn.resize(
            images,
            resize_shorter=spec["resize_size"],
            interp_type=types.INTERP_LINEAR,
            antialias=spec["antialias"],
        )
        mirror = 0
    if spec["output"] == "uint8":
        return fn.crop_mirror_normalize(
            images, dtype=types.UINT8, output_layout="HWC", crop=(size, size), mirror=mirror, mean=[0.0], std=[1.0]
        )
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", crop=(size, size), mirror=mirror, mean=MEAN, std=STD
    )


def batches_of(built: object) -> Iterator[np.ndarray]:
    """Yield dense batches as arrays, on DALI's own memory: valid until the next one is asked for."""
    while True:
        (images,) = built.run()
        yield np.asarray(images.as_tensor())


def make(spec: dict) -> tuple[dict, object]:
    """Build the pipeline; `spec`: shards, task, output, antialias, batch_size, sizes, num_cores."""
    paths = sorted(str(path) for path in Path(spec["shards"]).glob("train-*.tar"))
    built = pipeline(
        spec,
        paths,
        batch_size=spec["batch_size"],
        num_threads=spec["num_cores"],
        device_id=None,
        seed=0,
        prefetch_queue_depth=2,
    )
    built.build()
    about = {
        "versions": {"dali": nvidia.dali.__version__, "numpy": np.__version__},
        "how": f"{spec['num_cores']} threads, prefetch_queue_depth 2, webdataset reader",
    }
    return about, resident.stream(batches_of(built))


if __name__ == "__main__":
    resident.serve(make)
