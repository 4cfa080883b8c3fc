"""AlexNet: the paper's sizes, its normalisation, and a forward pass written a second time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rootstock.models.alexnet import LocalResponseNorm, feature_side
from rootstock.models.build import build, count_parameters, outline

SMALLEST = 67


@pytest.fixture(scope="module")
def network(alexnet):
    return build(alexnet, image_size=SMALLEST, num_classes=7, seed=3)


@pytest.mark.parametrize(
    ("groups", "num_classes", "num_parameters"),
    [(1, 1000, 62_378_344), (2, 1000, 60_965_224), (1, 102, 62_378_344 - 3_679_106)],
)
def test_has_the_known_number_of_parameters(alexnet, groups, num_classes, num_parameters):
    arch = alexnet.model_copy(update={"groups": groups})
    assert count_parameters(outline(arch, image_size=227, num_classes=num_classes)) == num_parameters


def test_sides_of_the_last_feature_map():
    assert [feature_side(size) for size in (227, 224, SMALLEST, SMALLEST - 1)] == [6, 5, 1, 0]


@settings(max_examples=15, deadline=None)
@given(image_size=st.integers(SMALLEST, 300))
def test_the_feature_map_has_the_side_the_first_full_layer_expects(alexnet, image_size):
    network = outline(alexnet, image_size=image_size, num_classes=5)
    assert network(torch.empty(2, 3, image_size, image_size, device="meta")).shape == (2, 5)


@pytest.mark.parametrize("image_size", [1, 32, SMALLEST - 1])
def test_too_small_images_are_refused_with_the_smallest_size(alexnet, image_size):
    with pytest.raises(ValueError, match=f"^alexnet: found image_size {image_size}; wanted >= 67$"):
        build(alexnet, image_size=image_size, num_classes=5, seed=0)


def test_response_normalisation_is_the_papers_formula():
    x = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(0)) * 50
    wanted = torch.empty_like(x)
    for channel in range(7):
        around = x[:, max(0, channel - 2) : channel + 3]
        wanted[:, channel] = x[:, channel] / (2 + 1e-4 * around.square().sum(dim=1)) ** 0.75
    torch.testing.assert_close(LocalResponseNorm()(x), wanted)
    torch.testing.assert_close(LocalResponseNorm()(x), torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(x))


def test_response_normalisation_survives_half_precision():
    x = torch.full((1, 5, 1, 1), 300.0, dtype=torch.float16)  # its square is infinite in float16
    y = LocalResponseNorm()(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), LocalResponseNorm()(x.float()), rtol=1e-3, atol=0)


def test_response_normalisation_has_the_right_gradient():
    x = torch.randn(1, 6, 2, 2, dtype=torch.float32, generator=torch.Generator().manual_seed(1)) * 30
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    LocalResponseNorm()(ours).square().sum().backward()
    torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("groups", "activation", "norm"), [(1, "relu", True), (2, "relu", True), (2, "tanh", False)])
def test_forward_is_the_papers(alexnet, groups, activation, norm):
    arch = alexnet.model_copy(update={"groups": groups, "activation": activation, "local_response_norm": norm})
    network = build(arch, image_size=99, num_classes=4, seed=1).eval()
    images = torch.randn(2, 3, 99, 99, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(network(images), _reference(dict(network.named_parameters()), images, arch))


def _reference(weights, x, arch):
    act = getattr(torch, arch.activation)

    def conv(x, name, **how):
        return act(functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **how))

    def respond(x):
        return functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2) if arch.local_response_norm else x

    x = functional.max_pool2d(respond(conv(x, "conv1", stride=4)), 3, 2)
    x = functional.max_pool2d(respond(conv(x, "conv2", padding=2, groups=arch.groups)), 3, 2)
    x = conv(x, "conv3", padding=1)
    x = conv(x, "conv4", padding=1, groups=arch.groups)
    x = functional.max_pool2d(conv(x, "conv5", padding=1, groups=arch.groups), 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        x = act(functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return functional.linear(x, weights["fc8.weight"], weights["fc8.bias"])


def test_weights_start_as_in_the_paper(network):
    biases = {name.split(".")[0]: p for name, p in network.named_parameters() if name.endswith("bias")}
    ones = {name for name, bias in biases.items() if bool((bias == 1).all())}
    zeros = {name for name, bias in biases.items() if bool((bias == 0).all())}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert zeros == {"conv1", "conv3", "fc8"}
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            assert float(parameter.detach().std()) == pytest.approx(0.01, rel=0.02), name
            assert abs(float(parameter.detach().mean())) < 3e-4, name


def test_tanh_starts_without_bias(alexnet):
    network = outline(alexnet.model_copy(update={"activation": "tanh"}), image_size=SMALLEST, num_classes=3)
    assert {network.initial(name, p.shape)[0] for name, p in network.named_parameters()} == {0.0}


def test_dropout_acts_on_both_hidden_layers_in_training_only(network):
    images = torch.randn(1, 3, SMALLEST, SMALLEST, generator=torch.Generator().manual_seed(2))
    seen = []
    handle = network.dropout.register_forward_hook(lambda _, args, result: seen.append((args[0], result)))
    with torch.no_grad():
        network.train()(images)
        network.eval()(images)
    handle.remove()
    assert [hidden.shape for hidden, _ in seen] == [(1, 4096)] * 4
    for hidden, result in seen[:2]:
        alive = hidden != 0
        assert float((result[alive] == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert all(torch.equal(hidden, result) for hidden, result in seen[2:])


def test_head_is_the_last_layer(network):
    assert network.head is network.fc8
    assert network.head.out_features == 7
