"""Where fine-tuning starts: what is kept, what is fresh, and what a step may change."""

from pathlib import Path

import pytest
import torch

from rootstock.config.model import AlexNetArch, ResNetArch
from rootstock.config.optim import CosineSchedule, Optim
from rootstock.models import alexnet, bundle
from rootstock.models.build import backbone_parameters, build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.training import optim
from rootstock.training.transfer import set_train_mode, start

ARCHS = {
    "resnet": (ResNetArch(name="resnet18", stem="small", width=8, zero_init_last_bn=False), 16),
    "alexnet": (AlexNetArch(name="alexnet", groups=2, activation="relu", local_response_norm=True, dropout=0.5), 67),
}
OPTIM = Optim(
    lr=0.1, momentum=0.9, weight_decay=0.01, decay_norm_and_bias=True,
    schedule=CosineSchedule(kind="cosine", warmup_epochs=0, final_fraction=0),
)  # fmt: skip


def normalise(value: float) -> Normalise:
    return Normalise.fit("standardise", mean=[value] * 3, std=[value] * 3, mean_image=None, image_size=16)


@pytest.fixture(scope="module", autouse=True)
def _narrow_alexnet():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(alexnet, "NUM_HIDDEN", 32)
        yield


@pytest.fixture(scope="module", params=ARCHS)
def pretrained(request, tmp_path_factory) -> Path:
    arch, image_size = ARCHS[request.param]
    classifier = Classifier(normalise(0.5), build(arch, image_size=image_size, num_classes=10, seed=7))
    folder = tmp_path_factory.mktemp("pretrain")
    facts = bundle.describe(
        classifier,
        class_names=[str(label) for label in range(10)],
        image_size=image_size,
        resize_size=image_size,
        trained_on={"collection": "demo", "splits": ["train"], "num_images": 5},
    )
    bundle.save(folder, classifier, facts)
    return folder


def backbone(classifier: Classifier) -> dict[str, torch.Tensor]:
    state = classifier.network.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if not name.startswith(classifier.network.HEAD)}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train_one_step(classifier: Classifier, strategy: str, image_size: int) -> None:
    optimizer = optim.make(classifier, optim=OPTIM)
    set_train_mode(classifier, strategy)
    images = torch.randint(0, 256, (4, image_size, image_size, 3), dtype=torch.uint8)
    torch.nn.functional.cross_entropy(classifier(images), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()


@pytest.mark.parametrize("strategy", ["linear", "full"])
def test_backbone_and_normalisation_are_the_pretrained_ones(pretrained, strategy):
    source, _ = bundle.load(pretrained)
    classifier = start(strategy, pretrained=pretrained, num_classes=4, normalise=None, seed=1)
    assert equal(backbone(classifier), backbone(source))
    assert equal(classifier.normalise.state_dict(), source.normalise.state_dict())
    fresh = build(source.network.arch, image_size=67, num_classes=4, seed=1)
    assert torch.equal(classifier.network.head.weight, fresh.head.weight)


def test_scratch_takes_the_architecture_alone(pretrained):
    facts = bundle.read_facts(pretrained)
    (pretrained / bundle.WEIGHTS).rename(pretrained / "hidden")  # not even looked at
    classifier = start("scratch", pretrained=pretrained, num_classes=4, normalise=normalise(0.25), seed=1)
    (pretrained / "hidden").rename(pretrained / bundle.WEIGHTS)
    source, _ = bundle.load(pretrained)
    fresh = build(source.network.arch, image_size=facts["image_size"], num_classes=4, seed=1)
    assert classifier.network.arch == source.network.arch
    assert equal(classifier.network.state_dict(), fresh.state_dict())
    assert classifier.normalise.mean.flatten().tolist() == [0.25] * 3


@pytest.mark.parametrize("strategy", ["linear", "full", "scratch"])
def test_seeds_give_different_heads_and_equal_seeds_equal_ones(pretrained, strategy):
    given = normalise(0.25) if strategy == "scratch" else None
    first, again, other = (
        start(strategy, pretrained=pretrained, num_classes=4, normalise=given, seed=seed) for seed in (1, 1, 2)
    )
    assert equal(first.state_dict(), again.state_dict())
    assert not torch.equal(first.network.head.weight, other.network.head.weight)


def test_linear_changes_the_head_alone(pretrained):
    classifier = start("linear", pretrained=pretrained, num_classes=4, normalise=None, seed=1)
    trained = [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]
    assert trained == [f"network.{classifier.network.HEAD}.{name}" for name in ("weight", "bias")]
    before, head = backbone(classifier), classifier.network.head.weight.clone()
    train_one_step(classifier, "linear", bundle.read_facts(pretrained)["image_size"])
    assert equal(backbone(classifier), before)  # running statistics included
    assert not torch.equal(head, classifier.network.head.weight)


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_the_others_change_everything(pretrained, strategy):
    given = normalise(0.25) if strategy == "scratch" else None
    classifier = start(strategy, pretrained=pretrained, num_classes=4, normalise=given, seed=1)
    parameters = backbone_parameters(classifier.network)
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    train_one_step(classifier, strategy, bundle.read_facts(pretrained)["image_size"])
    same = [name for name, parameter in parameters.items() if torch.equal(parameter, before[name])]
    assert same == []


def test_modes(pretrained):
    classifier = start("full", pretrained=pretrained, num_classes=4, normalise=None, seed=1)
    set_train_mode(classifier, "linear")
    assert not any(module.training for module in classifier.modules())
    for strategy in ("full", "scratch"):
        set_train_mode(classifier, strategy)
        assert all(module.training for module in classifier.modules())


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model.json is missing"):
        start("full", pretrained=tmp_path, num_classes=4, normalise=None, seed=1)
