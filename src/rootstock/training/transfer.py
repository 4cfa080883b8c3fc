"""Where fine-tuning starts, and which parts of the network learn.

linear  a fresh head on a frozen backbone (linear probe)
full    a fresh head, everything learns
scratch the same architecture with fresh weights: the control
"""

from pathlib import Path
from typing import Literal

from rootstock.models import bundle
from rootstock.models.build import backbone_parameters, build, replace_head
from rootstock.models.classifier import Classifier, Normalise

Strategy = Literal["linear", "full", "scratch"]


def start(
    strategy: Strategy, *, pretrained: Path, num_classes: int, normalise: Normalise | None, seed: int
) -> Classifier:
    """Return the classifier before its first step, with `requires_grad` set.

    The image size is the pretrained model's: AlexNet's fully connected layers and a mean image are bound to it.

    Args:
        pretrained: the pretrained model's folder; scratch takes only architecture and image size from it.
        num_classes: classes of the target.
        normalise: from the target's statistics, for scratch; None for the others, which keep the pretrained one: the
            features were learned under it, and another would shift and scale what the first layer sees.
        seed: of the fresh weights.

    Raises:
        ValueError: the folder holds no whole model.
    """
    assert (strategy == "scratch") == (normalise is not None), (strategy, normalise)
    if strategy == "scratch":
        facts = bundle.Facts.model_validate(bundle.read_facts(pretrained))
        network = build(facts.arch, image_size=facts.image_size, num_classes=num_classes, seed=seed)
        return Classifier(normalise, network)
    classifier, _ = bundle.load(pretrained)
    replace_head(classifier.network, num_classes=num_classes, seed=seed)
    if strategy == "linear":
        for parameter in backbone_parameters(classifier.network).values():
            parameter.requires_grad_(False)
    return classifier


def set_train_mode(classifier: Classifier, strategy: Strategy) -> None:
    """Switch to training; a frozen backbone stays in eval mode: its running statistics and dropout are frozen too."""
    classifier.train(strategy != "linear")
