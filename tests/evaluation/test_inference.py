from collections.abc import Iterator

import numpy as np
import pytest
import torch

from rootstock import rng
from rootstock.evaluation.inference import predict
from rootstock.evaluation.views import CROPS

SIZE = 8


class Network(torch.nn.Module):
    """A small classifier with batch norm and dropout, which must both be at rest."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = torch.nn.Conv2d(3, 6, 3, stride=2)
            self.head = torch.nn.Linear(6, 4)
        self.normalise = torch.nn.BatchNorm2d(6)
        self.dropout = torch.nn.Dropout(0.5)
        self.sizes: list[int] = []

    def forward(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        assert images_NHWC.dtype == torch.uint8
        self.sizes.append(len(images_NHWC))
        features = self.normalise(self.convolution(images_NHWC.permute(0, 3, 1, 2).float() / 16))
        return self.head(self.dropout(features.relu().amax(dim=(2, 3))))


def batches(num_images: int, batch: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    images = []
    for index in range(num_images):
        draw = rng.stream("test-inference", index)
        height, width = draw.integers(SIZE, 2 * SIZE, 2)
        images.append(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
    for start in range(0, num_images, batch):
        yield np.arange(start, min(start + batch, num_images)), images[start : start + batch]


def run(network: torch.nn.Module, *, num_images: int = 7, batch: int, batch_size: int, views: list[str]):
    found = list(
        predict(
            network,
            batches(num_images, batch),
            views=views,
            image_size=SIZE,
            batch_size=batch_size,
            device="cpu",
            precision="bf16",  # means fp32 on a CPU
        )
    )
    positions = np.concatenate([positions for positions, _ in found])
    return positions, {view: np.concatenate([part[view] for _, part in found]) for view in views}


def test_probabilities_are_the_mean_softmax_of_the_crops() -> None:
    network = Network().train()
    positions, found = run(network, batch=3, batch_size=4, views=["center", "ten"])
    assert positions.tolist() == list(range(7))
    network.eval()
    for view, probabilities in found.items():
        assert probabilities.dtype == np.float32
        for (_, (image,)), row in zip(batches(7, 1), probabilities, strict=True):
            crops = torch.from_numpy(np.stack(CROPS[view](image, size=SIZE)))
            with torch.no_grad():
                wanted = torch.stack([network(crop[None])[0].softmax(0) for crop in crops]).mean(0)
            np.testing.assert_allclose(row, wanted, atol=1e-6)
            assert row.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("batch", "batch_size"), [(1, 1), (7, 3), (2, 100)])
def test_batches_do_not_change_the_answer(batch: int, batch_size: int) -> None:
    views = ["center", "ten"]
    _, wanted = run(Network(), batch=4, batch_size=7, views=views)
    _, found = run(Network(), batch=batch, batch_size=batch_size, views=views)
    for view in views:
        np.testing.assert_allclose(found[view], wanted[view], atol=1e-6)


def test_no_forward_pass_exceeds_the_batch_size_and_every_crop_is_seen_once() -> None:
    network = Network()
    run(network, batch=4, batch_size=3, views=["ten"])
    assert max(network.sizes) == 3
    assert sum(network.sizes) == 70


def test_repeats_are_identical_and_other_views_change_nothing() -> None:
    _, first = run(Network(), batch=4, batch_size=7, views=["center", "ten"])
    _, second = run(Network(), batch=4, batch_size=7, views=["center"])
    np.testing.assert_array_equal(first["center"], second["center"])


def test_a_mirrored_image_has_the_same_ten_crop_answer() -> None:
    _, [image] = next(batches(1, 1))
    pair = [(np.array([0, 1]), [image, image[:, ::-1]])]
    (_, found), = predict(
        Network(), pair, views=["ten"], image_size=SIZE, batch_size=5, device="cpu", precision="fp32"
    )  # fmt: skip
    # the centre of an odd margin shifts by a pixel when mirrored, so the image has even margins
    assert (image.shape[1] - SIZE) % 2 == 0, image.shape
    np.testing.assert_allclose(found["ten"][0], found["ten"][1], atol=1e-6)


def test_a_diverged_model_is_an_error_with_a_hint() -> None:
    network = Network()
    with torch.no_grad():
        network.head.bias[1] = float("nan")
    with pytest.raises(ValueError, match=r"not finite \(first at position 0, view center\).*diverged: lower the"):
        run(network, batch=4, batch_size=4, views=["center"])


def test_an_image_smaller_than_the_crop_is_refused() -> None:
    small = [(np.array([0]), [np.zeros((SIZE - 1, 20, 3), np.uint8)])]
    with pytest.raises(ValueError, match="smaller than a crop"):
        list(predict(Network(), small, views=["ten"], image_size=SIZE, batch_size=4, device="cpu", precision="fp32"))
