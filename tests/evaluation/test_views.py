import numpy as np
import pytest

from rootstock.evaluation.views import CROPS, center, ten
from rootstock.schema.predictions import VIEWS


def numbered(height: int, width: int) -> np.ndarray:
    """Each pixel tells where it lies: red = row, green = column."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_center_cuts_the_middle_and_leaves_odd_pixels_at_the_bottom_right() -> None:
    (crop,) = center(numbered(6, 9), size=4)
    assert crop[0, 0].tolist() == [1, 2, 0]
    assert crop[-1, -1].tolist() == [4, 5, 0]


def test_ten_are_corners_and_centre_then_their_flips() -> None:
    crops = ten(numbered(6, 9), size=4)
    top_left = [crop[0, 0, :2].tolist() for crop in crops]
    assert top_left == [
        [0, 0], [0, 5], [2, 0], [2, 5], [1, 2],
        [0, 3], [0, 8], [2, 3], [2, 8], [1, 5],
    ]  # fmt: skip
    for crop, flipped in zip(crops[:5], crops[5:], strict=True):
        assert crop.shape == (4, 4, 3)
        np.testing.assert_array_equal(crop[:, ::-1], flipped)


def test_an_image_of_the_crops_size_gives_itself() -> None:
    image = numbered(5, 5)
    crops = ten(image, size=5)
    assert all((crop == image).all() for crop in crops[:5])
    assert all((crop == image[:, ::-1]).all() for crop in crops[5:])


@pytest.mark.parametrize("view", VIEWS)
def test_an_image_smaller_than_the_crop_is_refused(view: str) -> None:
    with pytest.raises(ValueError, match=r"an image of 9x3 pixels is smaller than a crop of 4; resize it first"):
        CROPS[view](numbered(3, 9), size=4)


def test_every_view_of_the_contract_has_its_crops() -> None:
    assert set(CROPS) == set(VIEWS)
