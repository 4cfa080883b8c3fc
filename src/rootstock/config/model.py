"""What network to build: told apart by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from rootstock.config.section import Section


class ResNetArch(Section):
    """A residual network, with the stride in the 3×3 convolution (version 1.5)."""

    name: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    # imagenet: 7×7, stride 2, max pooling; compact: 3×3, stride 2; small: 3×3, stride 1, for CIFAR's 32 px
    stem: Literal["imagenet", "compact", "small"]
    width: Annotated[int, Field(ge=8)]  # channels of the first stage; 64 in the paper
    zero_init_last_bn: bool  # every residual branch starts as zero


SMALLEST_ALEXNET = 67  # pixels a side below which AlexNet's last pooling leaves nothing


class AlexNetArch(Section):
    """The network of Krizhevsky 2012 as one tower of 96-256-384-384-256 channels."""

    name: Literal["alexnet"]
    groups: Literal[1, 2]  # of conv2, conv4, conv5; 2 in the paper, where each GPU held one half
    activation: Literal["relu", "tanh"]
    local_response_norm: bool
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]  # of the two hidden fully connected layers; 0.5 in the paper


Arch = Annotated[ResNetArch | AlexNetArch, Field(discriminator="name")]
