"""Build a network from its configuration; weights are a function of (seed, parameter name), never of an order."""

import torch
from torch import nn

from rootstock import rng
from rootstock.config.model import AlexNetArch, Arch
from rootstock.models.alexnet import AlexNet
from rootstock.models.resnet import ResNet

Network = AlexNet | ResNet


def build(arch: Arch, *, image_size: int, num_classes: int, seed: int) -> Network:
    """Build a network with fresh weights on the CPU; torch's own random state is not touched.

    Args:
        image_size: side in pixels of the square images it will see.
        num_classes: outputs of the head, >= 1.
        seed: >= 0.

    Raises:
        ValueError: the images are too small for this network.
    """
    network = outline(arch, image_size=image_size, num_classes=num_classes).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    _draw(network, dict(network.named_parameters()), seed=seed)
    return network


def outline(arch: Arch, *, image_size: int, num_classes: int) -> Network:
    """Build a network on the meta device: names, shapes and types without memory.

    Raises:
        ValueError: the images are too small for this network.
    """
    with torch.device("meta"):
        if isinstance(arch, AlexNetArch):
            return AlexNet(arch, image_size=image_size, num_classes=num_classes)
        return ResNet(arch, num_classes=num_classes)


def replace_head(network: Network, *, num_classes: int, seed: int) -> None:
    """Put a fresh head in place: the one `build` with this seed would have drawn."""
    old = network.head
    head = nn.Linear(old.in_features, num_classes, device="meta").to_empty(device=old.weight.device)
    setattr(network, network.HEAD, head)
    _draw(network, head_parameters(network), seed=seed)


def head_parameters(network: Network) -> dict[str, nn.Parameter]:
    """Return the final linear layer's parameters by their name in the network."""
    return {f"{network.HEAD}.{name}": parameter for name, parameter in network.head.named_parameters()}


def backbone_parameters(network: Network) -> dict[str, nn.Parameter]:
    """Return all parameters but the head's by their name in the network."""
    head = head_parameters(network)
    return {name: parameter for name, parameter in network.named_parameters() if name not in head}


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights and biases (not of running statistics)."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def _draw(network: Network, parameters: dict[str, nn.Parameter], *, seed: int) -> None:
    for name, parameter in parameters.items():
        mean, std = network.initial(name, parameter.shape)
        if std == 0:
            parameter.fill_(mean)
            continue
        # NumPy's normal draws do not depend on the CPU's instruction set, torch's do
        draws = rng.stream("init", seed, name).standard_normal(tuple(parameter.shape), dtype="float32")
        parameter.copy_(torch.from_numpy(draws).mul_(std).add_(mean))
