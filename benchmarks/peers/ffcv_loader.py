"""FFCV: its own file, written once from the same images, re-encoded or raw: so not quite the same task."""

import itertools
import os

import ffcv
import numpy as np
import resident  # beside this script
import torch
import torchvision
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter

MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255


def write(path: str, spec: dict) -> None:
    """Write FFCV's file; `spec`: images, write_mode, max_resolution."""
    image = RGBImageField(write_mode=spec["write_mode"], max_resolution=spec["max_resolution"], jpeg_quality=90)
    DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=1).from_indexed_dataset(
        torchvision.datasets.ImageFolder(spec["images"])
    )


def make(spec: dict) -> tuple[dict, object]:
    """Build the loader; `spec`: images, file (made if absent), write_mode, max_resolution, batch_size, num_cores."""
    if not os.path.exists(spec["file"]):
        write(spec["file"], spec)
    size = spec["image_size"]
    loader = Loader(
        spec["file"],
        batch_size=spec["batch_size"],
        num_workers=spec["num_cores"],
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((size, size)),
                RandomHorizontalFlip(),
                NormalizeImage(MEAN, STD, np.float32),
                ToTensor(),
                ToTorchImage(channels_last=False),
            ],
            "label": [IntDecoder()],
        },
    )
    batches = itertools.chain.from_iterable(loader for _ in itertools.count())
    about = {
        "versions": {"ffcv": ffcv.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "how": f"{spec['num_cores']} threads, {spec['write_mode']}, longest side {spec['max_resolution']}",
    }
    return about, resident.stream(batches, images=lambda batch: batch[0])


if __name__ == "__main__":
    resident.serve(make)
