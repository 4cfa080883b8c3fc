"""Normalisation: each kind against numbers worked out by hand and against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise

MEAN, STD = np.array([0.5, 0.25, 0.0]), np.array([0.25, 0.5, 1.0])


def fit(kind, mean_image=None, image_size=4) -> Normalise:
    return Normalise.fit(kind, mean=MEAN, std=STD, mean_image=mean_image, image_size=image_size)


def white(num_images=1, size=4) -> torch.Tensor:
    return torch.full((num_images, size, size, 3), 255, dtype=torch.uint8)


@pytest.mark.parametrize(("kind", "wanted"), [("standardise", [2.0, 1.5, 1.0]), ("channel-mean", [0.5, 0.75, 1.0])])
def test_channels_by_hand(kind, wanted):
    normalised = fit(kind)(white())
    assert normalised.shape == (1, 3, 4, 4)
    assert normalised[0, :, 2, 1].tolist() == wanted


def test_a_constant_channel_cannot_be_standardised():
    flat = {"mean": MEAN, "std": [0.5, 0.0, 0.5], "mean_image": None, "image_size": 4}
    with pytest.raises(ValueError, match=r"^preprocess standardise: found channel std \[0.5, 0.0, 0.5\], wanted > 0$"):
        Normalise.fit("standardise", **flat)
    assert bool((Normalise.fit("channel-mean", **flat).std == 1).all())


def test_mean_image_by_hand():
    mean_image = np.zeros((4, 4, 3))
    mean_image[1, 2] = [0.25, 0.5, 0.75]
    normalised = fit("mean-image", mean_image)(white())
    assert normalised[0, :, 1, 2].tolist() == [0.75, 0.5, 0.25]
    assert normalised[0, :, 2, 1].tolist() == [1.0, 1.0, 1.0]
    assert not bool((fit("mean-image", mean_image).std != 1).any())


def test_mean_image_is_cropped_at_its_centre():
    mean_image = np.zeros((6, 7, 3))
    mean_image[1, 1] = 0.5  # the top left corner of the central 4 × 4 of 6 × 7
    mean = fit("mean-image", mean_image).mean
    assert mean.shape == (3, 4, 4)
    assert mean[0, 0, 0] == 0.5
    assert float(mean.sum()) == 1.5


def test_a_small_mean_image_is_enlarged():
    mean_image = np.repeat(np.repeat([[[0.0, 0.2, 1.0]]], 2, axis=0), 2, axis=1)
    mean = fit("mean-image", mean_image).mean
    assert mean.shape == (3, 4, 4)
    torch.testing.assert_close(mean[:, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(mean[:, 3, 1], torch.tensor([0.0, 0.2, 1.0]))


def test_the_shift_is_one_colour_for_each_image():
    shift = torch.tensor([[0.0, 0.0, 0.0], [0.25, -0.5, 0.125]])
    normalised = fit("standardise")(white(2), shift)
    assert normalised[0, :, 0, 0].tolist() == [2.0, 1.5, 1.0]
    assert normalised[1, :, 3, 3].tolist() == [3.0, 0.5, 1.125]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["standardise", "channel-mean", "mean-image"]),
    num_images=st.integers(1, 3),
    size=st.integers(1, 9),
)
def test_agrees_with_float64(seed, kind, num_images, size):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)
    mean, std, shift = draw.random(3), draw.uniform(0.1, 1, 3), draw.normal(0, 0.1, (num_images, 3))
    mean_image = draw.random((size, size, 3))
    module = Normalise.fit(kind, mean=mean, std=std, mean_image=mean_image, image_size=size)
    centre = mean_image if kind == "mean-image" else mean
    spread = std if kind == "standardise" else 1.0
    wanted = (images / 255 + shift[:, None, None, :] - centre) / spread
    found = module(torch.from_numpy(images), torch.from_numpy(shift).float())
    np.testing.assert_allclose(found.numpy(), wanted.transpose(0, 3, 1, 2), rtol=0, atol=5e-6)
    assert found.is_contiguous(memory_format=torch.contiguous_format)


def test_input_is_left_alone():
    images = white()
    fit("standardise")(images)
    assert torch.equal(images, white())


def test_stays_in_float32_under_autocast():
    images = torch.arange(48, dtype=torch.uint8).reshape(1, 4, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fit("standardise")(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, fit("standardise")(images))


def test_images_of_another_size_than_the_mean_images_are_refused():
    normalise = fit("mean-image", np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"^images: found \(5, 5\) px; wanted \(4, 4\), the mean image's size$"):
        normalise(white(size=5))


def test_classifier_is_normalisation_then_network(small_resnet):
    network = build(small_resnet, image_size=8, num_classes=5, seed=0)
    classifier = Classifier(fit("standardise"), network).eval()
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 0.1]])
    with torch.no_grad():
        logits = classifier(images, shift)
        assert logits.shape == (2, 5)
        assert torch.equal(logits, network(classifier.normalise(images, shift)))
        assert not torch.equal(logits, classifier(images))
    assert {"normalise.mean", "normalise.std", "network.fc.weight"} <= classifier.state_dict().keys()
    assert not any(name.startswith("normalise") for name, _ in classifier.named_parameters())
