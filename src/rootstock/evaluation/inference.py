"""Inference: decoded images in, probabilities out, averaged over the crops of each view.

Layout: N images, V crops an image, S side of a crop, K classes; NHWC uint8 on the host.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from rootstock.evaluation.views import CROPS

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def predict(
    classifier: torch.nn.Module,
    batches: Iterable[tuple[np.ndarray, list[np.ndarray]]],
    *,
    views: list[str],
    image_size: int,
    batch_size: int,
    device: torch.device | str,
    precision: str,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield each batch's positions and, for every view, its images' probabilities.

    The images are decoded once for all views. The softmax of each crop is averaged, as AlexNet's ten-crop protocol
    does. No batch statistics are used (the classifier is put in eval mode) and nothing is padded, so an image's
    probabilities depend on the others only through the order of float32 additions.

    Args:
        classifier: maps uint8 (N, S, S, 3) to logits (N, K); it lies on `device` already.
        batches: positions int64 (N,) and N decoded, resized images uint8 (H, W, 3), sides >= image_size.
        views: names in `views.CROPS`.
        image_size: side S of a crop, pixels.
        batch_size: crops a forward pass, >= 1.
        device: where the classifier lies.
        precision: `fp32`, `bf16` or `fp16`; the last two autocast on CUDA and mean fp32 elsewhere.

    Yields:
        positions (N,), {view: probabilities float32 (N, K), rows sum to 1}.

    Raises:
        ValueError: an image is smaller than a crop, or the model gives something that is not a probability.

    Source:
        Krizhevsky, Sutskever, Hinton (2012), section 4.1.
    """
    assert batch_size >= 1, batch_size
    assert views
    device = torch.device(device)
    classifier.eval()
    for positions, images in batches:
        assert len(positions) == len(images), (len(positions), len(images))
        probabilities = {}
        for view in views:
            probabilities[view] = _average(classifier, images, view, image_size, batch_size, device, precision)
            if not np.isfinite(probabilities[view]).all():
                worst = int(positions[int(np.argmin(np.isfinite(probabilities[view]).all(axis=1)))])
                raise ValueError(
                    f"the model gives probabilities that are not finite (first at position {worst}, view {view}); "
                    "its training has diverged: lower the learning rate and train again"
                )
        yield positions, probabilities


def _average(
    classifier: torch.nn.Module,
    images: list[np.ndarray],
    view: str,
    image_size: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> np.ndarray:
    """Return float32 (N, K): softmax of the logits of each crop, mean over an image's crops."""
    crops = [crop for image in images for crop in CROPS[view](image, size=image_size)]
    softmax = [
        _softmax(classifier, np.stack(crops[start : start + batch_size]), device, precision)
        for start in range(0, len(crops), batch_size)
    ]
    probabilities_VK = torch.cat(softmax)
    return probabilities_VK.view(len(images), -1, probabilities_VK.shape[1]).mean(dim=1).cpu().numpy()


@torch.inference_mode()
def _softmax(classifier: torch.nn.Module, crops_NHWC: np.ndarray, device: torch.device, precision: str) -> torch.Tensor:
    lower = AUTOCAST[precision] if device.type == "cuda" else None
    with torch.autocast(device.type, dtype=lower, enabled=lower is not None):
        logits = classifier(torch.from_numpy(crops_NHWC).to(device))
    return logits.float().softmax(dim=1)
