"""Random views of training images, the one door to albumentations: geometry on uint8, keyed by sample.

The random draws of one view depend on (seed, epoch, the sample's key) alone, so workers, ranks, prefetching,
interruptions and the shards' cut change nothing. Colour PCA is drawn here and added on the device.
"""

import os
import threading

import numpy as np

from rootstock import rng

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks a package index for news
import albumentations
import cv2

cv2.setNumThreads(0)  # our threads are the parallelism; OpenCV's own would fight them


class TrainingViews:
    """Crop, flip and colour shift of training images."""

    def __init__(
        self,
        *,
        image_size: int,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        flip: float,
        colour_pca: np.ndarray | None,
        seed: int,
    ):
        """Describe the views.

        Args:
            image_size: pixels a side of the result.
            scale: range of the crop's area as a fraction of the image's.
            ratio: range of the crop's width / height.
            flip: probability of a horizontal flip.
            colour_pca: (3, 3) whose rows are eigenvectors of the *dataset's* RGB covariance on [0, 1], each times its
                eigenvalue and the shift's standard deviation (`colour_pca_rows`); None for no shift.
            seed: the training's.
        """
        self._options = {"image_size": image_size, "scale": scale, "ratio": ratio, "flip": flip}
        self._colour_pca = colour_pca
        self._seed = seed
        self._local = threading.local()  # a Compose carries its generator: one for each thread

    def view(self, image_HWC: np.ndarray, *, epoch: int, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return one view: uint8 (S, S, 3) and the colour shift, float32 (3,) on the [0, 1] scale."""
        stream = rng.stream("augment", self._seed, epoch, key)
        compose = self._compose()
        compose.set_random_seed(int(stream.integers(2**31)))
        shift = np.zeros(3, np.float32)
        if self._colour_pca is not None:
            shift = (stream.standard_normal(3) @ self._colour_pca).astype(np.float32)
        return compose(image=image_HWC)["image"], shift

    def _compose(self) -> albumentations.Compose:
        if not hasattr(self._local, "compose"):
            options = self._options
            size = (options["image_size"], options["image_size"])
            self._local.compose = albumentations.Compose(
                [
                    albumentations.RandomResizedCrop(size=size, scale=options["scale"], ratio=options["ratio"], p=1.0),
                    albumentations.HorizontalFlip(p=options["flip"]),
                ]
            )
        return self._local.compose


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
