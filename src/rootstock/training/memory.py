"""Out of memory: say which microbatch would fit. It is never changed silently: it decides what is computed."""

import torch

from rootstock.models.classifier import Classifier


class DeviceMemoryError(ValueError):
    """A microbatch that does not fit the device; the message names the largest that does."""


def refuse(classifier: Classifier, *, microbatch_size: int, image_size: int, autocast: torch.autocast) -> None:
    """Raise with the largest halving of a microbatch that fits the device, forward and backward.

    Args:
        classifier: on the device; its gradients are cleared.
        microbatch_size: what did not fit.
        image_size: pixels a side.
        autocast: the training's precision.

    Raises:
        DeviceMemoryError: always.
    """
    size = microbatch_size // 2
    while size > 1 and not _fits(classifier, size, image_size, autocast):
        size //= 2
    fits = f"the largest halving that fits is {size}" if size > 1 else "not even two images fit"
    raise DeviceMemoryError(
        f"training.microbatch_size {microbatch_size} does not fit the memory of {_device(classifier)}: {fits}; "
        "a smaller microbatch changes what is computed (batch statistics, dropout), so it is for you to choose"
    )


def _device(classifier: Classifier) -> torch.device:
    return next(classifier.parameters()).device


def _fits(classifier: Classifier, size: int, image_size: int, autocast: torch.autocast) -> bool:
    device = _device(classifier)
    classifier.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        images_NHWC = torch.zeros(size, image_size, image_size, 3, dtype=torch.uint8, device=device)
        with autocast:
            logits = classifier(images_NHWC)
        logits.float().sum().backward()
    except torch.OutOfMemoryError:
        return False
    finally:
        classifier.zero_grad(set_to_none=True)
    return True
