"""Statistics against closed form on planted images, and against float64 arithmetic on real photographs."""

import io
import itertools
import json
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rootstock.data import decode, stats
from rootstock.data.moments import Adder, Moments
from rootstock.schema import stats as schema


def measure(collection, *, short_side=8, crop_size=8, workers=1, chunk_size=256):
    return stats.measure(
        collection.manifest,
        locate=collection.locate,
        short_side=short_side,
        crop_size=crop_size,
        workers=workers,
        chunk_size=chunk_size,
    )


def plain(size, color):
    return np.full((size, size, 3), color, np.uint8)


def written(statistics, folder) -> tuple[bytes, bytes]:
    schema.write(folder / "a.json", folder / "a.npz", statistics)
    return (folder / "a.json").read_bytes(), (folder / "a.npz").read_bytes()


# -------------------------------------------------------------------------------------------------------- closed form


def test_one_colour(plant, encode):
    found = measure(plant([encode(plain(8, [255, 51, 0]))] * 3))
    assert found.channel_mean == [1.0, 0.2, 0.0]
    assert found.channel_std_per_pixel == found.channel_std_mean_of_images == [0.0] * 3
    assert found.covariance == [[0.0] * 3] * 3
    assert found.eigenvalues == [0.0] * 3
    assert (found.num_images, found.num_pixels) == (3, 192)
    assert np.array_equal(found.mean_image, plain(8, 1) * [1.0, 0.2, 0.0])


def test_two_colours_in_different_images_differ_by_the_definition_of_std(plant, encode):
    found = measure(plant([encode(plain(8, value)) for value in (0, 255)]))
    assert found.channel_mean == [0.5] * 3
    assert found.channel_std_per_pixel == [0.5] * 3
    assert found.channel_std_mean_of_images == [0.0] * 3
    # all channels are one: the grey axis carries all variance
    assert found.covariance == [[0.25] * 3] * 3
    assert found.eigenvalues == pytest.approx([0.75, 0, 0], abs=1e-16)
    assert found.eigenvectors[0] == pytest.approx([3**-0.5] * 3, abs=1e-15)


def test_two_colours_in_one_image(plant, encode):
    image = plain(8, 0)
    image[:2] = [255, 0, 102]
    found = measure(plant([encode(image)]))
    assert found.channel_mean == [0.25, 0.0, 0.1]
    # p(1 − p) = 3/16, times the product of the two channels' heights 1, 0, 0.4
    heights = np.array([1, 0, 0.4])
    assert np.allclose(found.covariance, np.outer(heights, heights) * 3 / 16, rtol=0, atol=1e-16)
    assert found.channel_std_mean_of_images == pytest.approx([3**0.5 / 4, 0, 3**0.5 / 10], abs=2**-47)
    assert found.eigenvectors[0] == pytest.approx((heights / np.linalg.norm(heights)).tolist(), abs=1e-15)


def test_a_planted_covariance_is_found(plant, encode):
    """Eight pixels at the corners ±a of a box: the covariance is diag(a²), and its axes are red, green, blue."""
    corners = np.array([[r, g, b] for r in (-1, 1) for g in (-1, 1) for b in (-1, 1)])
    image = (128 + corners * [20, 60, 40]).astype(np.uint8).repeat(8, axis=0).reshape(8, 8, 3)
    found = measure(plant([encode(image)]))
    assert np.allclose(found.covariance, np.diag([20, 60, 40]) ** 2 / 255**2, rtol=0, atol=1e-17)
    assert np.allclose(found.eigenvalues, np.array([60, 40, 20]) ** 2 / 255**2, rtol=0, atol=1e-17)
    assert found.eigenvectors == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_only_the_centre_of_training_images_counts(plant, encode):
    image = np.zeros((8, 20, 3), np.uint8)
    image[2:6, 8:12] = 255
    found = measure(plant([encode(image), encode(plain(8, 9))], splits=["train", "test"]), crop_size=4)
    assert found.channel_mean == [1.0] * 3
    assert found.num_images == 1
    assert found.geometry == {"short_side": 8, "crop_size": 4}


def test_counts_and_quantiles(plant, encode):
    sizes = [(8, 8), (8, 10), (8, 10), (30, 9)]
    found = measure(plant([encode(np.zeros((*size, 3), np.uint8)) for size in sizes], labels=[0, 0, 2, 0]))
    assert found.class_counts == [3, 0, 1]
    # a quantile is the smallest value that the fraction q of the images does not exceed
    assert found.width_quantiles == {"0": 8, "0.05": 8, "0.25": 8, "0.5": 9, "0.75": 10, "0.95": 10, "1": 10}
    assert found.height_quantiles == {"0": 8, "0.05": 8, "0.25": 8, "0.5": 8, "0.75": 8, "0.95": 30, "1": 30}
    assert found.width_counts.tolist() == [[8, 1], [9, 1], [10, 2]]


# -------------------------------------------------------------------------------------------------- the same to the bit


@pytest.fixture
def textures(plant, encode):
    rng = np.random.default_rng(7)
    sizes = rng.integers(20, 60, (60, 2))
    images = [encode(rng.integers(0, 256, (*size, 3), np.uint8), quality=95) for size in sizes]
    return plant(images, splits=[("train", "train", "val")[n % 3] for n in range(60)])


def test_workers_chunks_and_executors_do_not_matter(textures, tmp_path):
    (tmp_path / "one").mkdir()
    wanted = written(measure(textures, short_side=24, crop_size=20), tmp_path / "one")
    with ThreadPoolExecutor(2) as pool:
        for workers, chunk_size in [(1, 7), (2, 5), (3, 1), (pool, 9)]:
            found = measure(textures, short_side=24, crop_size=20, workers=workers, chunk_size=chunk_size)
            assert written(found, tmp_path) == wanted


def test_the_order_of_images_changes_the_digest_and_nothing_else(plant, encode):
    rng = np.random.default_rng(3)
    images = [encode(image) for image in rng.integers(0, 256, (12, 9, 9, 3), np.uint8)]
    order = random.Random(1).sample(range(12), 12)
    numbers = lambda order: {  # noqa: E731
        "keys": [f"k{n:02d}" for n in order],
        "labels": [n % 3 for n in order],
    }
    first = measure(plant(images, **numbers(range(12)), name="first"))
    other = measure(plant([images[n] for n in order], **numbers(order), name="other"))
    assert first.data_digest != other.data_digest
    for name in set(schema.VALUES) - {"data_digest", "collection"}:
        assert getattr(first, name) == getattr(other, name), name
    for name in schema.ARRAYS:
        assert np.array_equal(getattr(first, name), getattr(other, name)), name


def test_statistics_written_again_are_the_same_bytes_and_read_back(textures, tmp_path):
    statistics = measure(textures, short_side=24, crop_size=20)
    first = written(statistics, tmp_path)
    back = schema.read(tmp_path / "a.json", tmp_path / "a.npz")
    assert written(back, tmp_path) == first
    assert all(isinstance(text, str) for text in json.loads(first[0])["sums"]["channel_sums"])


def test_two_machines_sums_add_up(plant, encode):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (10, 8, 8, 3), np.uint8)
    parts = [plant([encode(i) for i in part], name=f"p{n}") for n, part in enumerate((images[:3], images[3:]))]
    both = measure(plant([encode(image) for image in images]))
    first, second = map(measure, parts)
    for channel in range(3):
        total = sum(int(part.sums["channel_sums"][channel]) for part in (first, second))
        assert str(total) == both.sums["channel_sums"][channel]
    assert np.array_equal(first.histograms + second.histograms, both.histograms)


@pytest.mark.parametrize(
    "change",
    [{"keys": ["a", "c"]}, {"labels": [0, 2]}, {"splits": ["train", "val"]}, {"backend": "pillow"}],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_binds_keys_labels_split_and_decoder(plant, encode, change):
    images = [encode(plain(8, 1)), encode(plain(8, 2))]
    given = {"keys": ["a", "b"], "labels": [0, 1]}
    assert measure(plant(images, **given)).data_digest == measure(plant(images, **given, name="again")).data_digest
    assert (
        measure(plant(images, **given, name="c")).data_digest
        != measure(plant(images, **(given | change), name="d")).data_digest
    )


# ----------------------------------------------------------------------------------------------------- real photographs


def independent(crops_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """The textbook formulas in float64: deviations from the mean, no sums of squares."""
    values = crops_NHWC.astype(np.float64) / 255
    pixels = values.reshape(-1, 3)
    covariance = np.cov(pixels.T, ddof=0)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return {
        "channel_mean": pixels.mean(0),
        "channel_std_per_pixel": pixels.std(0),
        "channel_std_mean_of_images": values.reshape(len(values), -1, 3).std(axis=1).mean(0),
        "covariance": covariance,
        "eigenvalues": eigenvalues[::-1],
        "eigenvectors": np.array([v * np.sign(v[np.abs(v).argmax()]) for v in vectors.T[::-1]]),
        "mean_image": values.mean(0),
    }


def assert_near(found, wanted):
    for name, value in wanted.items():
        assert np.abs(np.array(getattr(found, name)) - value).max() < 1e-12, name


def test_flowers_decoded_and_cut_by_pillow_alone(plant, shared_data):
    """At their own size no resizing takes part, so every step is computed twice."""
    with tarfile.open(shared_data / "flowers102" / "102flowers.tgz", mode="r|gz") as archive:
        files = itertools.islice((member for member in archive if member.isfile()), 60)
        images = [archive.extractfile(member).read() for member in files]
    images = [data for data in images if min(Image.open(io.BytesIO(data)).size) == 128]
    assert len(images) >= 40
    crops = []
    for data in images:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        left, top = (image.width - 112) // 2, (image.height - 112) // 2
        crops.append(np.asarray(image.crop((left, top, left + 112, top + 112))))
    found = measure(plant(images, backend="pillow"), short_side=128, crop_size=112)
    assert_near(found, independent(np.array(crops)))
    assert found.width_quantiles["0"] == min(Image.open(io.BytesIO(data)).width for data in images)


def test_imagenet_photographs_at_their_natural_size(plant, shared_data):
    with tarfile.open(shared_data / "imagenet-natural" / "images.tar") as archive:
        images = [archive.extractfile(member).read() for member in archive if member.isfile()][:64]
    settings = {"backend": "simplejpeg", "max_pixels": 10**8}
    resized = (decode.resize_short(decode.decode(data, **settings).image_HWC, short_side=96) for data in images)
    crops = np.array([decode.center_crop(image, size=88) for image in resized])
    found = measure(plant(images), short_side=96, crop_size=88)
    assert_near(found, independent(crops))
    assert [int(total) for total in found.sums["channel_sums"]] == crops.astype(np.int64).sum((0, 1, 2)).tolist()


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_changed_archive_is_noticed(plant, encode):
    collection = plant([encode(plain(8, value)) for value in range(5)])
    row = collection.rows.iloc[3]
    data = bytearray(collection.archive.read_bytes())
    data[row["offset"] + row["num_bytes"] // 2] ^= 1
    collection.archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"images.bin: class/00003: found bytes of sha256 .*, wanted .*; the archive"):
        measure(collection)


def test_without_training_images_there_are_no_statistics(plant, encode):
    with pytest.raises(ValueError, match=r"manifest.parquet: found no training image"):
        measure(plant([encode(plain(8, 1))], splits=["val"]))


def test_an_image_of_another_size_is_our_own_mistake():
    with pytest.raises(AssertionError):
        Adder(8).add(plain(9, 0), label=0, width=9, height=9)
    with pytest.raises(AssertionError, match="different crops"):
        Moments.zero(8) + Moments.zero(9)
