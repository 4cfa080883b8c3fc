"""A classifier takes images as they come from the decoder: normalisation is a part of the model, not of its callers.

Layouts: images_NHWC uint8 (N, S, S, 3) RGB; the network sees float32 NCHW in channels-last memory.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rootstock.config.training import Preprocess
from rootstock.models.build import Network


class Normalise(nn.Module):
    """Map uint8 images to (x / 255 + shift − mean) / std.

    Args:
        kind: how mean and std were chosen.
        mean: (3, 1, 1) or, for a mean image, (3, S, S), on the [0, 1] scale.
        std: (3, 1, 1), > 0, on the [0, 1] scale.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, kind: Preprocess, *, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        assert kind in get_args(Preprocess), kind
        self.kind = kind
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    @classmethod
    def fit(
        cls,
        kind: Preprocess,
        *,
        mean: Sequence[float] | np.ndarray,
        std: Sequence[float] | np.ndarray,
        mean_image: np.ndarray | None,
        image_size: int,
    ) -> "Normalise":
        """Choose mean and std from a collection's statistics.

        Args:
            kind: standardise (mean and std of all pixels), channel-mean (std is 1) or mean-image (std is 1).
            mean: (3,) channel means on [0, 1].
            std: (3,) standard deviations over all pixels on [0, 1].
            mean_image: (S', S', 3) on [0, 1]; needed by mean-image alone.
            image_size: side in pixels of the images the network will see; the mean image is cropped at its centre
                to it, or enlarged where it is smaller.

        Raises:
            ValueError: standardise, and a channel has the same value everywhere.
        """
        ones = torch.ones(3, 1, 1)
        if kind == "mean-image":
            assert mean_image is not None, "mean-image wants a mean image"
            return cls(kind, mean=_fit_mean_image(mean_image, image_size), std=ones)
        centre = torch.as_tensor(np.asarray(mean, dtype=np.float32)).reshape(3, 1, 1)
        spread = torch.as_tensor(np.asarray(std, dtype=np.float32)).reshape(3, 1, 1)
        if kind == "channel-mean":
            return cls(kind, mean=centre, std=ones)
        if not bool((spread > 0).all()):
            raise ValueError(f"preprocess standardise: found channel std {spread.flatten().tolist()}, wanted > 0")
        return cls(kind, mean=centre, std=spread)

    def forward(self, images_NHWC: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise a batch, in float32 also under autocast.

        Args:
            images_NHWC: uint8 (N, S, S, 3).
            shift: float32 (N, 3), added to every pixel of an image on the [0, 1] scale (colour augmentation).

        Returns:
            float32 (N, 3, S, S), in channels-last memory on a GPU (its tensor cores want it), else contiguous (on CPUs
            channels-last was a sixth slower).

        Raises:
            ValueError: the images' size is not the mean image's.
        """
        assert images_NHWC.dtype == torch.uint8, images_NHWC.dtype
        size = tuple(images_NHWC.shape[1:3])
        if self.mean.shape[1:] not in ((1, 1), size):
            raise ValueError(f"images: found {size} px; wanted {tuple(self.mean.shape[1:])}, the mean image's size")
        layout = torch.channels_last if images_NHWC.is_cuda else torch.contiguous_format
        x = images_NHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout)
        x.div_(255)
        if shift is not None:
            x.add_(shift[:, :, None, None])
        return x.sub_(self.mean).div_(self.std)


def _fit_mean_image(mean_image: np.ndarray, image_size: int) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(mean_image, dtype=np.float32)).permute(2, 0, 1)
    height, width = image.shape[1:]
    if min(height, width) < image_size:
        size = (image_size, image_size)
        image = functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        height, width = size
    top, left = (height - image_size) // 2, (width - image_size) // 2
    return image[:, top : top + image_size, left : left + image_size].contiguous()


class Classifier(nn.Module):
    """Normalisation and network: uint8 images in, logits out."""

    def __init__(self, normalise: Normalise, network: Network):
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, images_NHWC: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Map uint8 (N, S, S, 3) and an optional colour shift (N, 3) to logits (N, num_classes)."""
        return self.network(self.normalise(images_NHWC, shift))
