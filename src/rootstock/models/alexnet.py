"""AlexNet as one tower, as the paper has it: local response normalisation, overlapping pooling, dropout, 227 px.

Source: Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks (2012).
torchvision's `alexnet` is another network (64-192-384-256-256, no normalisation).
"""

import torch
from torch import nn
from torch.nn import functional

from rootstock.config.model import AlexNetArch

# These look at ReLUs' inputs: a bias of 1 keeps them positive early on (paper, section 5)
LAYERS_WITH_BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")
NUM_HIDDEN = 4096


class LocalResponseNorm(nn.Module):
    """Divide each activation by (2 + 1e-4 · Σ a²)^0.75, the sum over 5 neighbouring channels.

    The paper's formula; PyTorch's layer divides its alpha by the 5 (equal at alpha = 5e-4), and its gradient is not
    deterministic on GPUs (3-d average pooling), so the sum is written out here. float32 also under autocast: the
    squares overflow float16.
    """

    NUM_CHANNELS, BIAS, ALPHA, BETA = 5, 2.0, 1e-4, 0.75

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape and dtype."""
        reach = self.NUM_CHANNELS // 2
        squares = functional.pad(x.float().square(), (0, 0, 0, 0, reach, reach))
        total = sum(squares[:, start : start + x.shape[1]] for start in range(self.NUM_CHANNELS))
        return (x * (self.BIAS + self.ALPHA * total).pow(-self.BETA)).to(x.dtype)


def feature_side(image_size: int) -> int:
    """Return the side of the last feature map: 6 for 227 px; less than 1 where the image is too small."""
    side = (image_size - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side


class AlexNet(nn.Module):
    """AlexNet for square images of one size.

    Args:
        arch: groups, activation, normalisation, dropout.
        image_size: side in pixels; 227 in the paper. The first fully connected layer depends on it.
        num_classes: outputs of the head, >= 1.

    Raises:
        ValueError: the image is too small for the three poolings.
    """

    HEAD = "fc8"

    def __init__(self, arch: AlexNetArch, *, image_size: int, num_classes: int):
        super().__init__()
        side = feature_side(image_size)
        if side < 1:
            smallest = next(size for size in range(image_size, 228) if feature_side(size) >= 1)
            raise ValueError(f"alexnet: found image_size {image_size}; wanted >= {smallest}")
        self.arch = arch
        self.image_size = image_size
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=arch.groups)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=arch.groups)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=arch.groups)
        self.fc6 = nn.Linear(256 * side * side, NUM_HIDDEN)
        self.fc7 = nn.Linear(NUM_HIDDEN, NUM_HIDDEN)
        self.fc8 = nn.Linear(NUM_HIDDEN, num_classes)
        self.act = nn.ReLU(inplace=True) if arch.activation == "relu" else nn.Tanh()
        self.norm = LocalResponseNorm() if arch.local_response_norm else nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2)
        self.dropout = nn.Dropout(arch.dropout)

    @property
    def head(self) -> nn.Linear:
        """The final linear layer."""
        return self.fc8

    def initial(self, name: str, shape: torch.Size) -> tuple[float, float]:
        """Return (mean, standard deviation) from which a parameter is drawn: the paper's."""
        layer, kind = name.split(".")
        if kind == "weight":
            return 0.0, 0.01
        # A tanh unit would start saturated
        return float(self.arch.activation == "relu" and layer in LAYERS_WITH_BIAS_ONE), 0.0

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Map normalised images (N, 3, image_size, image_size) to logits (N, num_classes)."""
        x = self.pool(self.norm(self.act(self.conv1(images_NCHW))))
        x = self.pool(self.norm(self.act(self.conv2(x))))
        x = self.act(self.conv4(self.act(self.conv3(x))))
        x = self.pool(self.act(self.conv5(x)))
        x = self.dropout(self.act(self.fc6(x.flatten(1))))
        x = self.dropout(self.act(self.fc7(x)))
        return self.fc8(x)
