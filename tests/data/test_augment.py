"""Views are a function of (seed, epoch, key); the colour shift is AlexNet's, of the dataset's own covariance."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rootstock.data.augment import TrainingViews, colour_pca_rows

COLOURS = np.array([[0.2, 0.1, 0.1], [0.0, 0.05, -0.05], [0.01, 0.0, 0.0]])


def image(position: int) -> np.ndarray:
    size = (20 + position % 5, 30 - position % 7, 3)
    return np.random.default_rng(position).integers(0, 256, size, np.uint8)


def views(*, seed: int = 0, flip: float = 0.5, scale=(0.3, 1.0), ratio=(0.75, 1.3333), colours=COLOURS, size=12):
    return TrainingViews(image_size=size, scale=scale, ratio=ratio, flip=flip, colour_pca=colours, seed=seed)


def taken(made: TrainingViews, *, epoch: int, position: int) -> tuple[bytes, bytes]:
    pixels, shift = made.view(image(position), epoch=epoch, key=f"class/{position}")
    assert pixels.shape == (12, 12, 3)
    assert pixels.dtype == np.uint8
    assert shift.shape == (3,)
    assert shift.dtype == np.float32
    return pixels.tobytes(), shift.tobytes()


WANTED = [(epoch, position) for epoch in (0, 1) for position in range(20)]


def test_views_depend_on_neither_history_nor_order_nor_threads():
    made = views()
    reference = {names: taken(made, epoch=names[0], position=names[1]) for names in WANTED}
    random.seed(99)
    np.random.default_rng(3)
    shuffled = random.Random(1).sample(WANTED, len(WANTED))
    fresh = {names: taken(views(), epoch=names[0], position=names[1]) for names in shuffled[:10]}
    assert all(reference[names] == view for names, view in fresh.items())
    for num_threads in (1, 4):
        with ThreadPoolExecutor(num_threads) as pool:
            found = list(pool.map(lambda names: taken(made, epoch=names[0], position=names[1]), shuffled * 3))
        assert all(view == reference[names] for names, view in zip(shuffled * 3, found, strict=True))


def test_seed_epoch_and_key_each_change_the_view():
    picture = image(0)
    found = [
        made.view(picture, epoch=epoch, key=key)[0].tobytes()
        for made in (views(), views(seed=1))
        for epoch in (0, 1)
        for key in ("a", "b")
    ]
    assert len(set(found)) == 8


def test_whole_images_without_a_flip_are_only_resized():
    picture = image(3)[:12, :12]
    made = views(flip=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), colours=None)
    pixels, shift = made.view(picture, epoch=0, key="a")
    np.testing.assert_array_equal(pixels, picture)
    np.testing.assert_array_equal(shift, np.zeros(3))
    made = views(flip=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), colours=None)
    np.testing.assert_array_equal(made.view(picture, epoch=0, key="a")[0], picture[:, ::-1])


def test_half_of_the_views_are_flipped():
    picture = image(3)[:12, :12]
    made = views(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    flipped = [(made.view(picture, epoch=epoch, key="a")[0] != picture).any() for epoch in range(400)]
    assert 160 < sum(flipped) < 240


def test_the_crops_area_and_shape_stay_in_their_ranges():
    """On an image whose pixels say where they are, a crop's corners tell its size."""
    y, x = np.mgrid[0:200, 0:200]
    picture = np.stack([y, x, np.zeros_like(y)], axis=2).astype(np.uint8)
    made = views(flip=0.0, scale=(0.25, 0.5), ratio=(0.5, 2.0), size=40)
    areas, ratios = [], []
    for position in range(150):
        pixels, _ = made.view(picture, epoch=0, key=str(position))
        height = (float(pixels[-1, 0, 0]) - float(pixels[0, 0, 0])) * 40 / 39
        width = (float(pixels[0, -1, 1]) - float(pixels[0, 0, 1])) * 40 / 39
        areas.append(height * width / 40_000)
        ratios.append(width / height)
    assert 0.23 < min(areas) < 0.29
    assert 0.46 < max(areas) < 0.53
    assert 0.48 < min(ratios) < 0.62
    assert 1.6 < max(ratios) < 2.1


def test_the_shift_of_known_draws_is_known():
    rows = colour_pca_rows(eigenvalues=[0.2, 0.02], eigenvectors=[[1.0, 0, 0], [0, 0.6, 0.8]], std=0.1)
    np.testing.assert_allclose(rows, [[0.02, 0, 0], [0, 0.0012, 0.0016]], atol=1e-15)
    assert colour_pca_rows(eigenvalues=[1, 1, 1], eigenvectors=np.eye(3).tolist(), std=0) is None


def test_the_shifts_covariance_is_that_of_the_formula():
    """Σ p α λ with α ~ N(0, s²) has the covariance s² Σ λ² p pᵀ: eigenvalues enter squared, unlike the data's own."""
    basis, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    eigenvalues = [0.3, 0.1, 0.02]
    rows = colour_pca_rows(eigenvalues=eigenvalues, eigenvectors=basis.T.tolist(), std=0.1)
    made = views(colours=rows, size=1)
    picture = np.zeros((2, 2, 3), np.uint8)
    shifts = np.array([made.view(picture, epoch=0, key=str(position))[1] for position in range(4000)], np.float64)
    wanted = 0.01 * basis @ np.diag(np.square(eigenvalues)) @ basis.T
    np.testing.assert_allclose(shifts.mean(0), 0, atol=3 * 0.03 / np.sqrt(4000) * 1.5)
    np.testing.assert_allclose(np.cov(shifts.T), wanted, atol=0.08 * wanted.max())


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 60, 3), (60, 1, 3), (7, 700, 3)])
def test_odd_shapes_have_views(shape):
    pixels, _ = views().view(np.full(shape, 9, np.uint8), epoch=0, key="a")
    assert pixels.shape == (12, 12, 3)
    assert (pixels == 9).all()
