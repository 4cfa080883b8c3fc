"""Weights are a function of seed and name; a head can be replaced; the configuration says what is allowed."""

import pytest
import torch

from rootstock.config.model import Arch, ResNetArch
from rootstock.config.section import ParamsError, Section, parse
from rootstock.models.build import (
    backbone_parameters,
    build,
    count_parameters,
    head_parameters,
    replace_head,
)


class Holder(Section):
    """A section with an architecture in it."""

    arch: Arch


def test_weights_depend_on_seed_and_name_alone(small_resnet):
    deeper = small_resnet.model_copy(update={"name": "resnet34"})
    first = build(small_resnet, image_size=32, num_classes=5, seed=1).state_dict()
    torch.rand(17)
    again = build(small_resnet, image_size=32, num_classes=5, seed=1).state_dict()
    other_seed = build(small_resnet, image_size=32, num_classes=5, seed=2).state_dict()
    other_depth = build(deeper, image_size=32, num_classes=5, seed=1).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert all(torch.equal(tensor, other_depth[name]) for name, tensor in first.items())
    drawn = {name for name, tensor in first.items() if tensor.ndim > 1}
    assert {name for name, tensor in first.items() if not torch.equal(tensor, other_seed[name])} == drawn
    assert not torch.equal(first["layer1.0.conv1.weight"], first["layer1.0.conv2.weight"])


def test_weights_are_known_numbers(small_resnet):
    # The same on every processor and for every thread count; changing them changes every result
    weights = build(small_resnet, image_size=32, num_classes=5, seed=0).fc.weight
    assert weights[0, :3].tolist() == pytest.approx(
        [0.01469151210039854, 0.028222087770700455, 0.0024667950347065926], abs=0
    )


def test_building_leaves_torchs_random_state_alone(small_resnet):
    before = torch.random.get_rng_state()
    build(small_resnet, image_size=32, num_classes=5, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_tensor_is_finite_and_on_the_cpu(small_resnet):
    network = build(small_resnet, image_size=32, num_classes=5, seed=1)
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu", name
        assert bool(torch.isfinite(tensor).all()), name
    assert bool((network.bn1.running_var == 1).all())
    assert not bool(network.bn1.running_mean.any())
    assert int(network.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize("which", ["small_resnet", "narrow_alexnet"])
def test_a_replaced_head_is_the_one_a_fresh_network_has(which, request):
    arch = request.getfixturevalue(which)
    network = build(arch, image_size=67, num_classes=5, seed=1)
    backbone = {name: tensor.clone() for name, tensor in backbone_parameters(network).items()}
    replace_head(network, num_classes=9, seed=4)
    fresh = build(arch, image_size=67, num_classes=9, seed=4)
    assert network.head.out_features == 9
    assert torch.equal(network.head.weight, fresh.head.weight)
    assert torch.equal(network.head.bias, fresh.head.bias)
    assert all(torch.equal(tensor, backbone[name]) for name, tensor in backbone_parameters(network).items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_head_and_backbone_are_the_whole_network(small_resnet):
    network = build(small_resnet, image_size=32, num_classes=5, seed=1)
    assert list(head_parameters(network)) == ["fc.weight", "fc.bias"]
    assert {**backbone_parameters(network), **head_parameters(network)}.keys() == dict(
        network.named_parameters()
    ).keys()
    assert count_parameters(network.head) == 5 * 64 + 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 7}, "f.arch.width: 7 is not allowed: input should be greater than or equal to 8"),
        ({"widht": 64}, "f.arch.widht: unknown key (value 64); did you mean width?"),
        ({"stem": "large"}, "f.arch.stem: 'large' is not allowed: input should be 'imagenet', 'compact' or 'small'"),
    ],
)
def test_a_wrong_architecture_is_named(change, message):
    given = {"name": "resnet18", "stem": "small", "width": 64, "zero_init_last_bn": True}
    with pytest.raises(ParamsError) as caught:
        parse(Holder, {"arch": given | change}, where="f")
    assert str(caught.value) == message


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(ParamsError, match=r"resnet19.*'resnet18', 'resnet34', 'resnet50'.*'alexnet'"):
        parse(Holder, {"arch": {"name": "resnet19"}}, where="f")


def test_sections_are_told_apart_by_name():
    arch = parse(
        Holder,
        {"arch": {"name": "resnet101", "stem": "imagenet", "width": 64, "zero_init_last_bn": False}},
        where="f",
    ).arch
    assert isinstance(arch, ResNetArch)
