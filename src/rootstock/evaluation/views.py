"""Views: which crops of a decoded, resized image a model sees.

Layout: H, W, 3 are height, width and RGB; uint8.
"""

from collections.abc import Callable

import numpy as np

from rootstock.data.decode import center_crop


def center(image_HWC: np.ndarray, *, size: int) -> list[np.ndarray]:
    """Return the one central crop.

    Args:
        image_HWC: uint8 (H, W, 3), both sides >= size.
        size: side of the square crop, pixels.

    Returns:
        One uint8 (size, size, 3); an odd margin leaves its extra pixel at the bottom and at the right.

    Raises:
        ValueError: the image is smaller than the crop.
    """
    _checked(image_HWC, size)
    return [center_crop(image_HWC, size=size)]


def ten(image_HWC: np.ndarray, *, size: int) -> list[np.ndarray]:
    """Return the four corners and the centre, then the horizontal flips of these five.

    Args:
        image_HWC: uint8 (H, W, 3), both sides >= size.
        size: side of the square crops, pixels.

    Returns:
        Ten uint8 (size, size, 3): top left, top right, bottom left, bottom right, centre, and their flips, in order.

    Raises:
        ValueError: the image is smaller than the crop.

    Source:
        Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep CNNs (2012), section 4.1, which takes them from
        a square; the corners here are those of the whole resized image.
    """
    height, width = _checked(image_HWC, size)
    bottom, right = height - size, width - size
    corners = [_crop(image_HWC, top, left, size) for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right))]
    five = [*corners, *center(image_HWC, size=size)]
    return [*five, *(crop[:, ::-1] for crop in five)]


CROPS: dict[str, Callable[..., list[np.ndarray]]] = {"center": center, "ten": ten}


def _checked(image_HWC: np.ndarray, size: int) -> tuple[int, int]:
    assert (image_HWC.ndim, image_HWC.dtype) == (3, np.uint8), (image_HWC.shape, image_HWC.dtype)
    height, width = image_HWC.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"an image of {width}x{height} pixels is smaller than a crop of {size}; resize it first")
    return height, width


def _crop(image_HWC: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return image_HWC[top : top + size, left : left + size]
