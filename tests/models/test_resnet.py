"""ResNet: torchvision's parameter counts, names and outputs."""

import pytest
import torch
import torchvision

from rootstock.config.model import ResNetArch
from rootstock.models.build import build, count_parameters, outline

NUM_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def arch(name="resnet18", **changes) -> ResNetArch:
    return ResNetArch(**{"name": name, "stem": "imagenet", "width": 64, "zero_init_last_bn": False} | changes)


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_parameters_are_torchvisions_in_number_name_shape_and_order(name):
    network = outline(arch(name), image_size=224, num_classes=1000)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    assert count_parameters(network) == NUM_PARAMETERS[name]
    ours = [(key, tensor.shape, tensor.dtype) for key, tensor in network.state_dict().items()]
    assert ours == [(key, tensor.shape, tensor.dtype) for key, tensor in theirs.state_dict().items()]


def test_resnet50_for_flowers_has_the_known_number_of_parameters():
    assert count_parameters(outline(arch("resnet50"), image_size=224, num_classes=102)) == 23_717_030


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_torchvisions(name, training):
    network = build(arch(name), image_size=64, num_classes=10, seed=0)
    theirs = getattr(torchvision.models, name)(num_classes=10)
    theirs.load_state_dict(network.state_dict())
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network.train(training)(images), theirs.train(training)(images))
    for key, tensor in network.state_dict().items():  # running statistics too
        torch.testing.assert_close(tensor, theirs.state_dict()[key], msg=key)


def test_small_stem_is_the_same_network_with_a_small_first_layer():
    network = build(arch(stem="small"), image_size=16, num_classes=10, seed=0).eval()
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    theirs.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images))


@pytest.mark.parametrize(("name", "features"), [("resnet18", 8 * 8), ("resnet50", 8 * 8 * 4)])
def test_width_scales_every_stage(name, features):
    network = outline(arch(name, width=8), image_size=64, num_classes=10)
    assert network.head.in_features == features
    assert network.layer1[0].conv1.out_channels == 8
    assert network(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


def test_convolutions_start_with_hes_spread_for_the_outgoing_side():
    network = build(arch(width=32), image_size=64, num_classes=10, seed=0)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            out_channels, _, height, width = parameter.shape
            wanted = (2 / (out_channels * height * width)) ** 0.5
            assert float(parameter.detach().std()) == pytest.approx(wanted, rel=0.05), name
    assert float(network.fc.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not bool(network.fc.bias.any())


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_makes_every_residual_branch_zero(name, last):
    network = build(arch(name, width=8, zero_init_last_bn=True), image_size=64, num_classes=10, seed=0)
    zero = {key for key, p in network.named_parameters() if key.endswith("weight") and not bool(p.any())}
    blocks = [key for key, module in network.named_modules() if isinstance(module, network.block)]
    assert zero == {f"{block}.{last}.weight" for block in blocks}
    x = torch.rand(2, network.layer1[1].conv1.in_channels, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.layer1[1](x), x, rtol=0, atol=0)


def test_without_zero_init_all_scales_are_one():
    network = build(arch(width=8), image_size=64, num_classes=10, seed=0)
    scales = [p for key, p in network.named_parameters() if p.ndim == 1 and key.endswith("weight")]
    assert len(scales) == 20
    assert all(bool((scale == 1).all()) for scale in scales)
