"""torchvision: ImageFolder, Pillow, its v1 transforms and torch's DataLoader, as in PyTorch's ImageNet example."""

from collections.abc import Iterator

import numpy as np
import PIL
import resident  # beside this script
import torch
import torchvision
from torchvision import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Endless(torch.utils.data.Sampler):
    """One random order after the other, so that no epoch's end empties the pipeline."""

    def __init__(self, num_images: int):
        self._num_images = num_images

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            yield from rng.permutation(self._num_images).tolist()


def make(spec: dict) -> tuple[dict, object]:
    """Build the loader; `spec`: images (folder of class folders), task, output, batch_size, image_size, num_cores."""
    size = spec["image_size"]
    geometry = {
        "train": [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()],
        "eval": [transforms.Resize(spec["resize_size"]), transforms.CenterCrop(size)],
    }[spec["task"]]
    arithmetic = {
        "float32": [transforms.ToTensor(), transforms.Normalize(MEAN, STD)],
        "uint8": [transforms.PILToTensor()],
    }[spec["output"]]
    dataset = torchvision.datasets.ImageFolder(spec["images"], transforms.Compose([*geometry, *arithmetic]))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=spec["batch_size"],
        sampler=Endless(len(dataset)),
        num_workers=spec["num_cores"],
    )
    about = {
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
        "how": f"{spec['num_cores']} worker processes, prefetch_factor 2",
    }
    return about, resident.stream(iter(loader), images=lambda batch: batch[0])


if __name__ == "__main__":
    resident.serve(make)
