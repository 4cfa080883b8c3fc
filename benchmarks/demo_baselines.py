"""How far colour alone and coarse layout alone get on the demo's flowers: linear classifiers that a network must beat.

Run `python benchmarks/demo_baselines.py --seed 0`; it prints one JSON object.
"""

import argparse
import json
from collections.abc import Callable

import cv2
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from rootstock.data.sources import demo

PENALTIES = (1e-3, 1e-2, 1e-1)  # the best on test is reported: an upper bound for the baseline


def flowers(*, seed: int) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
    """Draw the target collection; returns for train and test its images, uint8 (H, W, 3), and labels (N,)."""
    splits = {}
    for name, parts in (("train", ("trnid", "valid")), ("test", ("tstid",))):
        wanted = [
            (label, flower, part, index)
            for label, flower in enumerate(demo.FLOWERS)
            for part in parts
            for index in range(demo.TARGET_PER_CLASS[part])
        ]
        images = [
            demo.picture(layout="flowers102", seed=seed, name=flower, split=part, index=index)
            for _, flower, part, index in wanted
        ]
        splits[name] = (images, np.array([label for label, *_ in wanted]))
    return splits


def joint_histogram(image_HWC: np.ndarray) -> np.ndarray:
    """Root of the share of pixels in each of 8×8×8 RGB cells, (512,); roots make histograms linearly comparable."""
    cells = (image_HWC >> 5).astype(np.int64) @ np.array([64, 8, 1])
    return np.sqrt(np.bincount(cells.ravel(), minlength=512) / cells.size)


def channel_histograms(image_HWC: np.ndarray) -> np.ndarray:
    """Root of the share of pixels in each of 32 levels of each channel, (96,)."""
    counts = [np.bincount(channel.ravel() >> 3, minlength=32) for channel in np.moveaxis(image_HWC, -1, 0)]
    return np.sqrt(np.concatenate(counts) / image_HWC[..., 0].size)


def coarse_pixels(image_HWC: np.ndarray) -> np.ndarray:
    """The picture shrunk to 8×8, (192,) in [-0.5, 0.5]."""
    return cv2.resize(image_HWC, (8, 8), interpolation=cv2.INTER_AREA).ravel() / 255 - 0.5


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "colour histogram 8×8×8": joint_histogram,
    "colour histogram 3×32": channel_histograms,
    "raw 8×8 pixels": coarse_pixels,
}


def fit(features_ND: np.ndarray, labels: np.ndarray, *, num_classes: int, penalty: float) -> np.ndarray:
    """Fit multinomial logistic regression with an L2 penalty; returns weights (D + 1, K), the last row the bias."""
    inputs = np.hstack([features_ND, np.ones((len(features_ND), 1))])
    targets = np.eye(num_classes)[labels]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(inputs.shape[1], num_classes)
        logits = inputs @ weights
        shrunk = np.vstack([weights[:-1], np.zeros((1, num_classes))])
        loss = -(targets * log_softmax(logits, axis=1)).sum() / len(inputs) + penalty / 2 * np.square(shrunk).sum()
        gradient = inputs.T @ (softmax(logits, axis=1) - targets) / len(inputs) + penalty * shrunk
        return float(loss), gradient.ravel()

    start = np.zeros(inputs.shape[1] * num_classes)
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 80})
    return found.x.reshape(inputs.shape[1], num_classes)


def accuracies(splits: dict[str, tuple[list[np.ndarray], np.ndarray]]) -> dict[str, float]:
    """Fit on train, score on test: for each kind of feature the accuracy with the best of `PENALTIES`."""
    (train, train_labels), (test, test_labels) = splits["train"], splits["test"]
    best = {}
    for name, feature in FEATURES.items():
        train_ND, test_ND = (np.stack([feature(image) for image in images]) for images in (train, test))
        scores = []
        for penalty in PENALTIES:
            weights = fit(train_ND, train_labels, num_classes=int(train_labels.max()) + 1, penalty=penalty)
            predicted = (test_ND @ weights[:-1] + weights[-1]).argmax(axis=1)
            scores.append(float((predicted == test_labels).mean()))
        best[name] = max(scores)
    return best


def main() -> None:
    """Print the accuracies with their n."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="the demo collection's seed")
    splits = flowers(seed=parser.parse_args().seed)
    facts = {
        "generator_version": demo.GENERATOR_VERSION,
        "num_classes": len(demo.FLOWERS),
        "chance": 1 / len(demo.FLOWERS),
        "num_train": len(splits["train"][0]),
        "num_test": len(splits["test"][0]),
        "accuracy_on_test": accuracies(splits),
    }
    print(json.dumps(facts, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
