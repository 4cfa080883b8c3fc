"""Networks small enough for every test."""

import pytest

from rootstock.config.model import AlexNetArch, ResNetArch
from rootstock.models import alexnet as alexnet_module


@pytest.fixture(scope="session")
def small_resnet() -> ResNetArch:
    return ResNetArch(name="resnet18", stem="small", width=8, zero_init_last_bn=True)


@pytest.fixture(scope="session")
def alexnet() -> AlexNetArch:
    return AlexNetArch(name="alexnet", groups=1, activation="relu", local_response_norm=True, dropout=0.5)


@pytest.fixture
def narrow_alexnet(alexnet, monkeypatch) -> AlexNetArch:
    """The same with hidden layers of 32 units, where their 17 million weights would only take time."""
    monkeypatch.setattr(alexnet_module, "NUM_HIDDEN", 32)
    return alexnet
