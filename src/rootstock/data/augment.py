"""Random views of training images, the one door to albumentations: geometry on uint8, keyed by sample.

The random draws of one view depend on (seed, epoch, the sample's key) alone, so workers, ranks, prefetching,
interruptions and the shards' cut change nothing. Colour PCA is drawn here and added on the device.

albumentations draws; the pixels are computed by the OpenCV calls that it would make, straight into their place in the
batch. Its `Compose` makes three pairs of generators anew for every sample, all of one seed, so that whether a view is
mirrored would follow from the size of its crop; here all draws of a view come one after the other from one generator.
"""

import os
import random
import threading
from typing import NamedTuple

import numpy as np

from rootstock import rng
from rootstock.data import decode

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks a package index for news
import albumentations
import cv2

cv2.setNumThreads(0)  # our threads are the parallelism; OpenCV's own would fight them


class _Draws(threading.local):
    """The transforms and their generator, one set for each thread."""

    def __init__(self, *, crop: dict[str, object], flip: float):
        self.random = random.Random()
        self.crop = albumentations.RandomResizedCrop(**crop, p=1.0)
        self.flip = albumentations.HorizontalFlip(p=flip)
        for transform in (self.crop, self.flip):
            transform.set_random_state(None, self.random)  # the first is NumPy's, which neither of them draws from


class Drawn(NamedTuple):
    """What was drawn for one view."""

    box: tuple[int, int, int, int]  # left, top, right, bottom of the crop, pixels
    is_flipped: bool
    shift: np.ndarray  # float32 (3,), of the colour, on the [0, 1] scale

    @property
    def num_rows(self) -> int:
        """How many of the image's rows, from the top, it needs."""
        return self.box[3]


class TrainingViews:
    """Crop, flip and colour shift of training images."""

    def __init__(
        self,
        *,
        image_size: int,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        flip: float,
        antialias: bool,
        colour_pca: np.ndarray | None,
        seed: int,
    ):
        """Describe the views.

        Args:
            image_size: pixels a side of the result.
            scale: range of the crop's area as a fraction of the image's.
            ratio: range of the crop's width / height.
            flip: probability of a horizontal flip.
            antialias: whether a crop that is made smaller is smoothed first, as evaluation does it; without, four
                neighbours are taken whatever the factor, which is faster and leaves jagged edges.
            colour_pca: (3, 3) whose rows are eigenvectors of the *dataset's* RGB covariance on [0, 1], each times its
                eigenvalue and the shift's standard deviation (`colour_pca_rows`); None for no shift.
            seed: the training's.
        """
        self._size = (image_size, image_size)
        self._draws = _Draws(crop={"size": self._size, "scale": tuple(scale), "ratio": tuple(ratio)}, flip=flip)
        self._antialias = antialias
        self._colour_pca = colour_pca
        self._seed = seed

    def view(self, image_HWC: np.ndarray, *, epoch: int, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return one view: uint8 (S, S, 3) and the colour shift, float32 (3,) on the [0, 1] scale."""
        height, width = image_HWC.shape[:2]
        drawn = self.draw(height, width, epoch=epoch, key=key)
        out = np.empty((*self._size, 3), np.uint8)
        self.cut(image_HWC, drawn, out=out)
        return out, drawn.shift

    def draw(self, height: int, width: int, *, epoch: int, key: str) -> Drawn:
        """Draw the view of an image of this size."""
        draws = self._draws
        rng.restart(draws.random, "augment", self._seed, epoch, key)
        box = draws.crop.get_params_dependent_on_data({"shape": (height, width)}, {})["crop_coords"]
        is_flipped = draws.flip.should_apply()
        shift = np.zeros(3, np.float32)
        if self._colour_pca is not None:
            shift[:] = np.array([draws.random.gauss(0.0, 1.0) for _ in range(3)]) @ self._colour_pca
        return Drawn(box, is_flipped, shift)

    def cut(self, image_HWC: np.ndarray, drawn: Drawn, *, out: np.ndarray) -> None:
        """Write a view into uint8 (S, S, 3); of the image only the rows that the view needs have to be there."""
        left, top, right, bottom = drawn.box
        self._resize_into(out, image_HWC[top:bottom, left:right])
        if drawn.is_flipped:
            cv2.flip(out, 1, dst=out)

    def _resize_into(self, out: np.ndarray, crop_HWC: np.ndarray) -> None:
        if self._antialias:
            out[:] = decode.resize(crop_HWC, height=self._size[0], width=self._size[1])
        else:
            cv2.resize(crop_HWC, self._size, dst=out, interpolation=cv2.INTER_LINEAR)


def colour_pca_rows(*, eigenvalues: list[float], eigenvectors: list[list[float]], std: float) -> np.ndarray | None:
    """Scale eigenvectors for the shift Σ p_i α_i λ_i with α_i ~ N(0, std), pixels on [0, 1].

    Args:
        eigenvalues: (3,) of the RGB covariance on [0, 1].
        eigenvectors: (3, 3), rows.
        std: of α; 0 turns the shift off.

    Returns:
        float64 (3, 3), or None when `std` is 0.

    Source: Krizhevsky et al. 2012, section 4.1. The formula is not scale-invariant: on 0–255 pixels the same λ gives
    nonsense. albumentations' FancyPCA takes the PCA of each image instead and scales the pixels, hence our own.
    """
    if std == 0:
        return None
    return np.asarray(eigenvectors, np.float64) * np.asarray(eigenvalues, np.float64)[:, None] * std
