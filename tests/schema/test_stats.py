"""The contract of statistics finds what was changed, in one file or between the two."""

import json

import numpy as np
import pytest

from rootstock.data.moments import Adder
from rootstock.data.stats import derive
from rootstock.schema import stats
from rootstock.schema.contract import ContractError


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(2)
    adder = Adder(6)
    for number in range(5):
        image = rng.integers(0, 200, (6, 6, 3), np.uint8) + np.uint8([number, 40, 10 * number])
        adder.add(image, label=number % 2, width=6 + number, height=10)
    statistics = derive(
        adder.moments(),
        collection="planted",
        num_classes=2,
        geometry={"short_side": 8, "crop_size": 6},
        decode={"backend": "simplejpeg", "max_pixels": 100},
        data_digest="0" * 64,
    )
    stats.write(tmp_path / "a.json", tmp_path / "a.npz", statistics)
    return tmp_path / "a.json", tmp_path / "a.npz"


def edit(path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_arrays(path, change) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def test_a_whole_pair_is_read(files):
    found = stats.read(*files)
    assert found.num_images == 5
    assert found.class_counts == [3, 2]
    assert found.mean_image.shape == (6, 6, 3)
    assert np.allclose(found.mean_image.mean((0, 1)), found.channel_mean, rtol=0, atol=1e-15)


MUTATIONS = {
    "a missing key": (lambda v: v.pop("covariance"), r"a.json: found keys .*, wanted"),
    "an unknown key": (lambda v: v.update(more=1), r"a.json: found keys .*, wanted"),
    "a mean above 1": (lambda v: v["channel_mean"].__setitem__(0, 1.5), r"row 0, column mean: found 1.5"),
    "a mean of other sums": (lambda v: v["channel_mean"].__setitem__(0, 0.4), r"channel_mean: found \[0.4, .*wanted"),
    "an integer mean": (lambda v: v["channel_mean"].__setitem__(0, 1), r"channel_mean: found .*, wanted floats"),
    "two channels": (lambda v: v["channel_mean"].pop(), r"channel_mean: found .*, wanted floats of shape \(3,\)"),
    "a ragged matrix": (lambda v: v["covariance"][1].pop(), r"covariance: found .*, wanted floats of shape \(3, 3\)"),
    "a std above 1/2": (
        lambda v: v["channel_std_per_pixel"].__setitem__(1, 0.6),
        r"row 1, column std_per_pixel",
    ),
    "the two stds swapped": (
        lambda v: v.update(
            channel_std_per_pixel=v["channel_std_mean_of_images"], channel_std_mean_of_images=v["channel_std_per_pixel"]
        ),
        r"a mean of per-image stds not above the std over all pixels",
    ),
    "a std of another covariance": (
        lambda v: v["channel_std_per_pixel"].__setitem__(2, 0.4),
        r"channel_std_per_pixel: found",
    ),
    "rising eigenvalues": (lambda v: v["eigenvalues"].reverse(), r"eigenvalues that fall"),
    "a negative eigenvalue": (lambda v: v["eigenvalues"].__setitem__(2, -1e-3), r"row 2, column eigenvalue: found"),
    "eigenvalues of another trace": (lambda v: v["eigenvalues"].__setitem__(0, 0.3), r"eigenvalues: found .*, wanted"),
    "a vector turned round": (
        lambda v: v["eigenvectors"].__setitem__(0, [-x for x in v["eigenvectors"][0]]),
        r"wanted positive largest components",
    ),
    "vectors swapped": (lambda v: v["eigenvectors"].reverse(), r"eigenvectors: found"),
    "a longer vector": (
        lambda v: v["eigenvectors"].__setitem__(0, [2 * x for x in v["eigenvectors"][0]]),
        r"eigenvectors: found",
    ),
    "an asymmetric covariance": (lambda v: v["covariance"][0].__setitem__(1, 0.0), r"covariance: found"),
    "pixels of another crop": (lambda v: v.update(num_pixels=181), r"num_pixels: found 181, wanted 180"),
    "fewer images": (lambda v: v.update(num_images=4, num_pixels=144), r"class_counts: found 5, wanted 4"),
    "class counts": (lambda v: v["class_counts"].append(1), r"class_counts: found 6, wanted 5"),
    "an unknown geometry": (lambda v: v["geometry"].pop("short_side"), r"geometry: found .*, wanted a mapping"),
    "a digest": (lambda v: v.update(data_digest="xyz"), r"data_digest: found 'xyz', wanted 64"),
    "channel sums": (lambda v: v["sums"]["channel_sums"].__setitem__(0, "1"), r"found"),
    "std sums": (lambda v: v["sums"]["std_sums"].__setitem__(0, "1"), r"channel_std_mean_of_images: found"),
    "a quantile": (lambda v: v["width_quantiles"].update({"0.5": 9}), r"a.json: width_quantiles: found .*, wanted"),
    "another crop than the arrays'": (
        lambda v: v["geometry"].update(crop_size=5),
        r"a.npz: image_sums: found uint64 \(6, 6, 3\), wanted uint64 \(5, 5, 3\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_json_is_found(files, change, message):
    edit(files[0], change)
    with pytest.raises(ContractError, match=message):
        stats.read(*files)


ARRAY_MUTATIONS = {
    "a missing array": (lambda a: a.pop("histograms"), r"a.npz: found arrays .*, wanted"),
    "a histogram's count": (lambda a: a["histograms"].__setitem__((0, 3), 99), r"a.npz: histograms: found"),
    "two bins swapped": (
        lambda a: a["histograms"].__setitem__(1, a["histograms"][1][::-1]),
        r"a.npz: histograms: found",
    ),
    "a pixel of the mean image": (lambda a: a["image_sums"].__setitem__((0, 0, 0), 7), r"a.npz: image_sums: found"),
    "another type": (lambda a: a.update(image_sums=a["image_sums"] * 1.0), r"image_sums: found float64"),
    "a count of widths": (
        lambda a: a["width_counts"].__setitem__((0, 1), 2),
        r"a.npz: width_counts: found 6",
    ),
    "unsorted widths": (lambda a: a.update(width_counts=a["width_counts"][::-1]), r"a.npz: width_counts: found"),
    "heights other than the quantiles": (lambda a: a["height_counts"].__setitem__((0, 0), 11), r"height_quantiles"),
}


@pytest.mark.parametrize(("change", "message"), ARRAY_MUTATIONS.values(), ids=ARRAY_MUTATIONS.keys())
def test_changed_arrays_are_found(files, change, message):
    edit_arrays(files[1], change)
    with pytest.raises(ContractError, match=message):
        stats.read(*files)


def test_a_cut_npz_is_found(files):
    data = files[1].read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        files[1].write_bytes(data[:length])
        with pytest.raises(ContractError, match=r"a.npz is not a whole .npz file"):
            stats.read(*files)


def test_nothing_is_unpickled(files):
    np.savez(files[1], image_sums=np.array([{}], dtype=object))
    with pytest.raises(ContractError, match="Object arrays cannot be loaded"):
        stats.read(*files)


def test_statistics_that_contradict_themselves_are_not_written(files, tmp_path):
    statistics = stats.read(*files)
    statistics.channel_mean[0] = 0.9
    with pytest.raises(ContractError, match=r"b.json"):
        stats.write(tmp_path / "b.json", tmp_path / "b.npz", statistics)
    assert not list(tmp_path.glob("*b*"))
