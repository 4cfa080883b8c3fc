"""Mistakes of one model on one split and view: which images, and which classes are taken for which."""

import numpy as np
import pandas as pd


def worst_errors(rows: pd.DataFrame, *, num_errors: int) -> pd.DataFrame:
    """Return the wrong predictions the model was most sure of.

    Args:
        rows: predictions of one split and view.
        num_errors: at most so many.

    Returns:
        key, label, predicted, confidence (of the predicted class), probability (of the true class); most confident
        first, equal ones by key.
    """
    wrong = rows[rows["predicted"] != rows["label"]]
    table = pd.DataFrame(
        {
            "key": wrong["key"],
            "label": wrong["label"],
            "predicted": wrong["predicted"],
            "confidence": wrong["probabilities"].map(lambda row: float(row.max())),
            "probability": [
                float(row[label]) for row, label in zip(wrong["probabilities"], wrong["label"], strict=True)
            ],
        }
    )
    return table.sort_values(["confidence", "key"], ascending=[False, True], ignore_index=True).head(num_errors)


def worst_confusions(counts: np.ndarray, *, num_pairs: int) -> pd.DataFrame:
    """Return the pairs of classes that are confused most.

    Args:
        counts: integers (K, K), row = true class, column = predicted class.
        num_pairs: at most so many.

    Returns:
        label, predicted, num_images (of the label taken for predicted), share (of the label's images); most images
        first, equal ones by class.
    """
    counts = np.asarray(counts)
    off_diagonal = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    label, predicted = np.nonzero(off_diagonal)
    num_images = off_diagonal[label, predicted]
    order = np.lexsort((predicted, label, -num_images))[:num_pairs]
    return pd.DataFrame(
        {
            "label": label[order],
            "predicted": predicted[order],
            "num_images": num_images[order],
            "share": num_images[order] / counts.sum(axis=1)[label[order]],
        }
    )
