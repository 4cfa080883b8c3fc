"""ResNet-18 to 152, version 1.5; modules are named as torchvision's, so that state dicts can be exchanged.

Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition (2015). The stride lies in the 3×3
convolution of a bottleneck, not in its first 1×1 (Gross, Wilber 2016: about 0.5 points of top-1 better).
"""

import math

import torch
from torch import nn

from rootstock.config.model import ResNetArch


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1
    last_bn = "bn2"

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, channels, H/stride, W/stride)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(branch + shortcut)


class Bottleneck(nn.Module):
    """1×1 down, 3×3 with the stride, 1×1 up to four times the channels, and a shortcut."""

    expansion = 4
    last_bn = "bn3"

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, 4 * channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, 4 × channels, H/stride, W/stride)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(branch + shortcut)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projection where the shape changes (option B of the paper), nothing elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),  # not in the paper: for small pictures on a few CPU cores
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}

STEMS = {"imagenet": (7, 2), "compact": (3, 2), "small": (3, 1)}  # kernel, stride of the first convolution


class ResNet(nn.Module):
    """A residual network for images of any size.

    Args:
        arch: depth, stem and width.
        num_classes: outputs of the head, >= 1.
    """

    HEAD = "fc"

    def __init__(self, arch: ResNetArch, *, num_classes: int):
        super().__init__()
        self.arch = arch
        self.block, num_blocks = STAGES[arch.name]
        kernel, stride = STEMS[arch.stem]
        self.conv1 = nn.Conv2d(3, arch.width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(arch.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if arch.stem == "imagenet" else nn.Identity()
        channels = [arch.width * 2**stage for stage in range(4)]
        inputs = [arch.width, *(self.block.expansion * count for count in channels[:3])]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self._stage(inputs[stage], channels[stage], num_blocks[stage], stride=1 if stage == 0 else 2)
            for stage in range(4)
        )
        self.fc = nn.Linear(self.block.expansion * channels[3], num_classes)

    def _stage(self, in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
        first = self.block(in_channels, channels, stride)
        return nn.Sequential(
            first, *(self.block(self.block.expansion * channels, channels, 1) for _ in range(num_blocks - 1))
        )

    @property
    def head(self) -> nn.Linear:
        """The final linear layer."""
        return self.fc

    def initial(self, name: str, shape: torch.Size) -> tuple[float, float]:
        """Return (mean, standard deviation) from which a parameter is drawn: He's, for the outgoing side.

        The head starts near zero (0.01, Goyal et al. 2017), so that the first loss is log(num_classes).
        """
        if name.startswith("fc."):
            return 0.0, 0.01 if name == "fc.weight" else 0.0
        if len(shape) == 4:
            return 0.0, math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        if self.arch.zero_init_last_bn and name.endswith(f".{self.block.last_bn}.weight"):
            return 0.0, 0.0
        return 1.0 if name.endswith("weight") else 0.0, 0.0

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Map normalised images (N, 3, H, W) to logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images_NCHW))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))
