"""timm: create_dataset and create_loader on a folder, crop and flip only."""

import itertools

import PIL
import resident  # beside this script
import timm
import torch
from timm.data import create_dataset, create_loader


def make(spec: dict) -> tuple[dict, object]:
    """Build the loader; `spec`: images, task, prefetcher, batch_size, image_size, resize_size, num_cores."""
    is_training = spec["task"] == "train"
    loader = create_loader(
        create_dataset("", root=spec["images"], is_training=is_training),
        input_size=(3, spec["image_size"], spec["image_size"]),
        batch_size=spec["batch_size"],
        is_training=is_training,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        color_jitter=0.0,
        interpolation="bilinear",
        crop_pct=spec["image_size"] / spec["resize_size"],
        num_workers=spec["num_cores"],
        device=torch.device("cpu"),
        use_prefetcher=spec["prefetcher"],
        use_multi_epochs_loader=True,  # else the pipeline runs empty at each epoch's end
    )
    batches = itertools.chain.from_iterable(loader for _ in itertools.count())
    about = {
        "versions": {"timm": timm.__version__, "torch": torch.__version__, "pillow": PIL.__version__},
        "how": f"{spec['num_cores']} worker processes, "
        + ("uint8 from them, normalised by its prefetcher" if spec["prefetcher"] else "normalised in them"),
    }
    return about, resident.stream(batches, images=lambda batch: batch[0])


if __name__ == "__main__":
    resident.serve(make)
