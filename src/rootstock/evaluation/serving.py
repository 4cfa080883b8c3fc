"""Serving: an image's bytes in, probabilities out, by the very steps that evaluation takes.

Layout: N images, K classes.
"""

import time
from typing import Any, Literal

import numpy as np
import torch

from rootstock.config.manifest import Decode
from rootstock.config.section import Section
from rootstock.data import decode
from rootstock.evaluation import inference

NUM_WARM_UP = 3  # first predictions choose kernels and grow buffers
NUM_ROUNDS = 3


class Serving(Section):
    """How a model is used beyond its bundle: as it was when the gate judged it."""

    decode: Decode
    view: Literal["center", "ten"]


def predict(
    classifier: torch.nn.Module,
    images: list[bytes],
    *,
    facts: dict[str, Any],
    serving: Serving,
    device: torch.device | str,
) -> np.ndarray:
    """Return each image's probabilities, float32 (N, K).

    Args:
        classifier: on `device`.
        images: the bytes of N >= 1 JPEG, PNG or WebP files.
        facts: of the classifier's bundle.
        device: where the classifier lies.

    Raises:
        ImageError: an image is refused; the message names its number, from 0, and the reason.
    """
    pixels = []
    for number, data in enumerate(images):
        try:
            decoded = decode.decode(data, **serving.decode.model_dump())
        except decode.ImageError as error:
            raise decode.ImageError(f"image {number}: {error}") from None
        pixels.append(decode.resize_short(decoded.image_HWC, short_side=facts["resize_size"]))
    predicted = inference.predict(
        classifier,
        [(np.arange(len(pixels)), pixels)],
        views=[serving.view],
        image_size=facts["image_size"],
        batch_size=max(len(pixels), 1),
        device=device,
        precision="fp32",
    )
    return next(iter(predicted))[1][serving.view]


def latency_ms(
    classifier: torch.nn.Module,
    images: list[bytes],
    *,
    facts: dict[str, Any],
    serving: Serving,
    device: torch.device | str,
    enough_ms: float,
) -> float:
    """Return the median time of one prediction, in milliseconds: decoding, resizing, cropping and the network.

    Args:
        images: the bytes of at least one file, predicted one at a time.
        enough_ms: a median above is measured up to `NUM_ROUNDS` times and the smallest returned: other programs on
            this machine are not the model's fault.
    """
    options = {"facts": facts, "serving": serving, "device": device}
    for _ in range(NUM_WARM_UP):
        predict(classifier, images[:1], **options)
    medians: list[float] = []
    while len(medians) < NUM_ROUNDS and not (medians and medians[-1] <= enough_ms):
        seconds = []
        for data in images:
            started = time.perf_counter()
            predict(classifier, [data], **options)
            seconds.append(time.perf_counter() - started)
        medians.append(1000 * float(np.median(seconds)))
    return min(medians)
