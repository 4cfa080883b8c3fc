"""Simulated champions and challengers: what their predictions on the gate's images look like, without a model.

Model m gets image i of class c right if theta_c + √r e_i + √f t_i + √(1 − r − f) u_im > 0, all of them standard normal:
e is the image (hard for every model), t what the candidates of one training set share and the champion does not, u the
model's own. The accuracy in class c is Φ(theta_c), so equal quality is exactly equal.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from rootstock.evaluation.metrics import NUM_BINS, stratified, wilson
from rootstock.evaluation.paired_test import detectable_difference

IMAGE_SHARE = 0.85  # of the variance: 12 to 15 of 100 images are right in one model alone, as in the demo
CANDIDATE_SHARE = 0.06


class Models(NamedTuple):
    """What is true of the models: accuracy by class (K,), of the champion and of each of the m candidates (m, K)."""

    champion: np.ndarray
    candidates: np.ndarray


class Judged(NamedTuple):
    """One champion and its best candidate on the same images."""

    pairs: pd.DataFrame  # as compare.align gives it
    champion: dict  # as metrics.compute gives it, what the gate reads
    challenger: dict
    chosen: int  # number of the candidate


def accuracies(num_classes: int) -> np.ndarray:
    """Accuracy by class from 20 to 97 %, as the demo's and Flowers-102's classes spread."""
    return np.linspace(0.2, 0.97, num_classes)


def better(accuracy_K: np.ndarray, gain: float) -> np.ndarray:
    """Raise every class by the same shift of theta, so that their mean rises by `gain`."""
    shift = brentq(lambda one: ndtr(ndtri(accuracy_K) + one).mean() - accuracy_K.mean() - gain, 0, 10)
    return ndtr(ndtri(accuracy_K) + shift)


def disagreement(champion_K: np.ndarray, challenger_K: np.ndarray) -> float:
    """Return the true share of images that exactly one gets right: integrated over e."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    rest = np.sqrt(1 - IMAGE_SHARE)
    a, b = (ndtr((ndtri(one_K)[:, None] + np.sqrt(IMAGE_SHARE) * nodes) / rest) for one_K in (champion_K, challenger_K))
    return float(((a * (1 - b) + b * (1 - a)) @ weights).mean() / weights.sum())


def detectable_gain(accuracy_K: np.ndarray, *, num_images: int, level: float, power: float) -> float:
    """Return the difference that the test shows with this power, at the disagreement that goes with it."""
    gain = 0.0
    for _ in range(20):  # the disagreement hardly changes with the gain
        share = disagreement(accuracy_K, better(accuracy_K, gain))
        found = detectable_difference(round(share * num_images), num_images=num_images, level=level, wanted_power=power)
        assert found is not None, num_images
        gain = found
    return gain


def draw(models: Models, *, per_class: int, draws: np.random.Generator) -> Judged:
    """Draw images and predictions; selection chooses the candidate with the highest accuracy on these very images."""
    num_candidates, num_classes = models.candidates.shape
    labels = np.repeat(np.arange(num_classes), per_class)
    image = np.sqrt(IMAGE_SHARE) * draws.standard_normal(len(labels))
    rest = np.sqrt(1 - IMAGE_SHARE)
    shared = np.sqrt(CANDIDATE_SHARE) * draws.standard_normal(len(labels))
    own = np.sqrt(1 - IMAGE_SHARE - CANDIDATE_SHARE) * draws.standard_normal((num_candidates, len(labels)))
    a = ndtri(models.champion)[labels] + image + rest * draws.standard_normal(len(labels)) > 0
    each = ndtri(models.candidates)[:, labels] + image + shared + own > 0
    chosen = int(each.sum(axis=1).argmax())
    # how sure a model is: how often models of its kind get this image right
    sure = [ndtr((ndtri(one)[labels] + image) / rest) for one in (models.champion, models.candidates[chosen])]
    return Judged(
        pd.DataFrame({"label": labels, "correct_a": a, "correct_b": each[chosen]}),
        _metrics(labels, a, sure[0]),
        _metrics(labels, each[chosen], sure[1]),
        chosen,
    )


def _metrics(labels: np.ndarray, correct: np.ndarray, sure: np.ndarray) -> dict:
    bins = np.clip(np.ceil(sure * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    return {
        "num_images": len(labels),
        "num_classes": int(labels[-1]) + 1,
        "top1": wilson(int(correct.sum()), len(labels))._asdict(),
        "mean_per_class": stratified(np.bincount(labels, correct), np.bincount(labels))._asdict(),
        "ece": float(np.abs(np.bincount(bins, correct - sure, NUM_BINS)).sum() / len(labels)),
    }
