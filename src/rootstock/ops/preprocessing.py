"""A collection's statistics as the network's first step: of the shards' own data, of the part the network sees."""

import numpy as np
import torch

from rootstock import layout
from rootstock.data.decode import center_crop
from rootstock.data.shard_set import ShardSet
from rootstock.models.classifier import Normalise
from rootstock.schema import stats as stats_schema


def normalisation(dataset: str, shards: ShardSet, *, kind: str, image_size: int, resize_size: int) -> Normalise:
    """Make the normalisation of a collection from its statistics.

    Raises:
        ValueError: the statistics are of other data than the shards, or their crop is smaller than what the network
            sees and kind is mean-image.
    """
    measured = statistics(dataset, shards)
    mean_image = None
    if kind == "mean-image":
        mean_image = _seen_part(measured, image_size=image_size, resize_size=resize_size)
    return Normalise.fit(
        kind,
        mean=measured.channel_mean,
        std=measured.channel_std_per_pixel,
        mean_image=mean_image,
        image_size=image_size,
    )


def statistics(dataset: str, shards: ShardSet) -> stats_schema.Statistics:
    """Read a collection's statistics.

    Raises:
        ValueError: they are of other data than the shards.
    """
    path = layout.stats(dataset)
    measured = stats_schema.read(path, layout.stats_arrays(dataset))
    if measured.data_digest != shards.facts["data_digest"]:
        raise ValueError(
            f"{path}: data_digest: found {measured.data_digest[:12]}…, wanted {shards.facts['data_digest'][:12]}…, "
            f"that of {layout.shards(dataset)}: statistics and shards are of different data; run `dvc repro`"
        )
    return measured


def _seen_part(measured: stats_schema.Statistics, *, image_size: int, resize_size: int) -> np.ndarray:
    """Cut from the mean image what the network sees of an image, and bring it to the network's size.

    Statistics and network may resize to different short sides; the same part of the scene is what must agree.
    """
    short_side, crop_size = measured.geometry["short_side"], measured.geometry["crop_size"]
    side = round(image_size * short_side / resize_size)
    if side > crop_size:
        raise ValueError(
            f"preprocess mean-image: stats.crop_size: found {crop_size} of short_side {short_side} pixels, wanted at "
            f"least {side}: the network sees {image_size} of {resize_size}"
        )
    seen = center_crop(measured.mean_image, size=side)
    # the mean image is no uint8 picture: rounding it would shift every input by up to half a grey level
    tensor = torch.from_numpy(np.ascontiguousarray(seen)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        tensor, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()
