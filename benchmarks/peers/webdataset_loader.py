"""webdataset: shards, a shuffle buffer, Pillow, torchvision's transforms and its own WebLoader, as its example does."""

from pathlib import Path

import PIL
import resident  # beside this script
import torch
import torchvision
import webdataset
from torchvision import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHUFFLE_BUFFER = 256


def make(spec: dict) -> tuple[dict, object]:
    """Build the loader; `spec`: shards (folder), batch_size, image_size, num_cores."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(spec["image_size"]),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    urls = sorted(str(path) for path in Path(spec["shards"]).glob("train-*.tar"))
    dataset = (
        webdataset.WebDataset(urls, resampled=True, shardshuffle=False)
        .shuffle(SHUFFLE_BUFFER)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform, lambda label: label)
        .batched(spec["batch_size"], partial=False)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=spec["num_cores"])
    about = {
        "versions": {
            "webdataset": webdataset.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "pillow": PIL.__version__,
        },
        "how": f"{spec['num_cores']} worker processes, shuffle buffer {SHUFFLE_BUFFER}, {len(urls)} shards resampled",
    }
    return about, resident.stream(iter(loader), images=lambda batch: batch[0])


if __name__ == "__main__":
    resident.serve(make)
