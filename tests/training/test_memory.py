"""Out of memory names the largest microbatch that fits, and changes nothing by itself."""

import pytest
import torch

from rootstock.config.model import ResNetArch
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.training import memory

NORMALISE = Normalise("standardise", mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
ARCH = ResNetArch(name="resnet10", stem="small", width=8, zero_init_last_bn=False)


class Limited(Classifier):
    """A classifier on a device that holds the activations of `limit` images."""

    limit = 0

    def forward(self, images_NHWC: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        if len(images_NHWC) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return super().forward(images_NHWC, shift)


@pytest.mark.parametrize(
    ("limit", "wanted"), [(20, "halving that fits is 16;"), (3, "halving that fits is 2;"), (1, "not even two images")]
)
def test_the_largest_halving_that_fits_is_named(limit: int, wanted: str) -> None:
    classifier = Limited(NORMALISE, build(ARCH, image_size=8, num_classes=3, seed=0)).eval()
    classifier.limit = limit
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=False)
    with pytest.raises(memory.DeviceMemoryError, match="microbatch_size 64 does not fit") as caught:
        memory.refuse(classifier, microbatch_size=64, image_size=8, autocast=autocast)
    assert wanted in str(caught.value)
    assert all(parameter.grad is None for parameter in classifier.parameters())
