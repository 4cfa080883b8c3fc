"""Views are a function of (seed, epoch, key); the colour shift is AlexNet's, of the dataset's own covariance."""

import random
from concurrent.futures import ThreadPoolExecutor

import albumentations
import numpy as np
import pytest

from rootstock import rng
from rootstock.data.augment import TrainingViews, colour_pca_rows
from rootstock.data.decode import resize

COLOURS = np.array([[0.2, 0.1, 0.1], [0.0, 0.05, -0.05], [0.01, 0.0, 0.0]])


def image(position: int) -> np.ndarray:
    size = (20 + position % 5, 30 - position % 7, 3)
    return np.random.default_rng(position).integers(0, 256, size, np.uint8)


def views(
    *, seed=0, flip=0.5, scale=(0.3, 1.0), ratio=(0.75, 1.3333), antialias=False, colours=COLOURS, size=12
) -> TrainingViews:
    return TrainingViews(
        image_size=size, scale=scale, ratio=ratio, flip=flip, antialias=antialias, colour_pca=colours, seed=seed
    )


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


def test_views_are_those_of_albumentations_own_pipeline():
    """Its transforms one after the other, drawing from the keyed generator; 200 keys."""
    generator = random.Random()
    pipeline = [albumentations.RandomResizedCrop(size=(12, 12), scale=(0.3, 1.0), ratio=(0.75, 1.3333)),
                albumentations.HorizontalFlip(p=0.5)]  # fmt: skip
    for transform in pipeline:
        transform.set_random_state(np.random.default_rng(0), generator)
    made = views(seed=5)
    for position in range(200):
        rng.restart(generator, "augment", 5, 3, f"class/{position}")
        wanted = {"image": image(position)}
        for transform in pipeline:
            wanted = transform(**wanted)
        pixels, shift = made.view(image(position), epoch=3, key=f"class/{position}")
        np.testing.assert_array_equal(pixels, wanted["image"])
        draws = np.array([generator.gauss(0, 1) for _ in range(3)])
        np.testing.assert_array_equal(shift, (draws @ COLOURS).astype(np.float32))


@pytest.mark.parametrize("antialias", [False, True])
def test_a_view_is_written_into_its_place_from_the_rows_that_it_needs(antialias):
    made = views(antialias=antialias)
    rows = np.zeros((40, 12, 12, 3), np.uint8)
    for position, row in enumerate(rows):
        picture = image(position)
        drawn = made.draw(*picture.shape[:2], epoch=0, key=str(position))
        made.cut(picture[: drawn.num_rows], drawn, out=row)
        pixels, shift = made.view(picture, epoch=0, key=str(position))
        np.testing.assert_array_equal(row, pixels)
        np.testing.assert_array_equal(drawn.shift, shift)


def test_antialiasing_changes_the_pixels_and_not_the_draws():
    """A crop of the whole image, so that the result is known: what evaluation makes of it."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    plain, smooth = (views(scale=(1.0, 1.0), ratio=(1.0, 1.0), antialias=antialias) for antialias in (False, True))
    wanted = resize(picture, height=12, width=12)
    for key in "abcdefgh":
        pixels, shift = smooth.view(picture, epoch=0, key=key)
        assert (pixels == wanted).all() or (pixels == wanted[:, ::-1]).all()
        jagged, same_shift = plain.view(picture, epoch=0, key=key)
        np.testing.assert_array_equal(shift, same_shift)
        assert pixels.std() < 20 < 30 < jagged.std(), "noise is averaged away"


def test_whether_a_view_is_mirrored_does_not_follow_from_its_crop():
    """albumentations gives each transform the same seed: small crops would always be mirrored, large ones never."""
    y, x = np.mgrid[0:100, 0:100]
    picture = np.stack([x, y, x], axis=2).astype(np.uint8)
    made = views(ratio=(1.0, 1.0), scale=(0.2, 1.0), colours=None)
    mirrored: dict[bool, list[bool]] = {True: [], False: []}
    for position in range(600):
        left, right = (int(value) for value in made.view(picture, epoch=0, key=str(position))[0][0, [0, -1], 0])
        mirrored[abs(right - left) > 70].append(right < left)
    for found in mirrored.values():
        assert len(found) > 150
        assert 0.4 < np.mean(found) < 0.6


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
