"""Looks: the same for the same picture in other bytes, other for other pictures; integers, the same everywhere."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from rootstock.data.decode import resize
from rootstock.data.likeness import MIRROR, alike, likeness


def picture(number: int, *, height: int = 120, width: int = 160) -> np.ndarray:
    """A smooth random picture in colour."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def distance(one_HWC: np.ndarray, other_HWC: np.ndarray, *, mirrored: bool = False) -> int:
    return (likeness(one_HWC).hash ^ likeness(other_HWC).hash ^ (MIRROR if mirrored else 0)).bit_count()


def same(one_HWC: np.ndarray, other_HWC: np.ndarray, *, mirrored: bool = False) -> bool:
    thumbnails = (np.frombuffer(likeness(image).thumbnail, np.uint8)[None] for image in (one_HWC, other_HWC))
    return bool(alike(*thumbnails, mirrored=np.array([mirrored]))[0])


def reencoded(image_HWC: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


CHANGES = {
    "JPEG of quality 30": lambda image: reencoded(image, 30),
    "half its size": lambda image: resize(image, height=60, width=80),
    "another aspect": lambda image: resize(image, height=64, width=64),
    "cropped by 2 %": lambda image: image[1:-1, 1:-2],
    "brighter": lambda image: np.clip(image * 1.1, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.9).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_changed_picture_is_near_and_alike(change, mirrored):
    for number in range(20):
        image = picture(number)
        other = change(image)[:, ::-1] if mirrored else change(image)
        assert distance(image, other, mirrored=mirrored) <= 11
        assert same(image, other, mirrored=mirrored)


def test_mirroring_an_image_turns_its_hash_by_the_mask():
    image = picture(1, height=96, width=128)
    assert likeness(image[:, ::-1]).hash == likeness(image).hash ^ MIRROR


def test_other_pictures_are_far_and_unlike():
    images = [picture(number) for number in range(60)]
    for first in range(60):
        for second in range(first):
            assert distance(images[first], images[second]) > 11
            assert not same(images[first], images[second])


def test_the_same_shape_in_other_colours_is_another_picture():
    image = picture(3)
    assert not same(image, image[:, :, ::-1])
    assert not same(np.full((40, 40, 3), 20, np.uint8), np.full((40, 40, 3), 220, np.uint8))
    assert same(np.full((40, 40, 3), 20, np.uint8), np.full((50, 60, 3), 21, np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (31, 33), (700, 7), (1025, 2049)])
def test_any_size_has_looks(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    looks = likeness(image)
    assert 0 <= looks.hash < 2**64
    assert len(looks.thumbnail) == 192
    assert np.frombuffer(likeness(np.full((*shape, 3), 7, np.uint8)).thumbnail, np.uint8).tolist() == [7] * 192


def test_sums_of_a_huge_image_do_not_overflow():
    image = np.full((500, 40_000, 3), 255, np.uint8)  # 5 × 10^9 in all
    image[:, 20_000:] = 0
    thumbnail = np.frombuffer(likeness(image).thumbnail, np.uint8).reshape(8, 8, 3)
    assert (thumbnail[:, :4] == 255).all()
    assert (thumbnail[:, 4:] == 0).all()


def test_known_looks():
    """Stored sums: on another machine the same."""
    noise = np.random.default_rng(5).integers(0, 256, (97, 131, 3), np.uint8)
    looks = likeness(noise)
    assert (f"{looks.hash:016x}", hashlib.sha256(looks.thumbnail).hexdigest()[:16]) == (
        "ca72b92bf189787c",
        "c3ae86b79d87d5f5",
    )
