"""Duplicates as the report shows them: counts by kind and splits, and a contact sheet of the first pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rootstock.evaluation import figures

NUM_BITS = 64  # of a hash


def leaks(
    dataset: str,
    *,
    facts: Mapping[str, Any],
    rows: pd.DataFrame,
    images: dict[str, np.ndarray],
    class_names: list[str],
    num_pairs: int,
) -> dict:
    """Return what the page says of a collection's duplicates.

    Args:
        facts, rows: of the table of `rootstock.schema.duplicates`.
        images: uint8 (H, W, 3) by key; of a dropped image there is none.
        class_names: by label.
        num_pairs: at most so many are shown, the first of the table.
    """
    shown = rows.head(num_pairs).to_dict("records")
    within = [
        f"{sum(by_split.values())} {kind} ({', '.join(f'{split} {num}' for split, num in by_split.items() if num)})"
        for kind, by_split in facts["same_place"].items()
        if any(by_split.values())
    ]
    return {
        "dataset": dataset,
        "num_images": facts["num_images"],
        "num_leaks": len(rows),
        "num_dropped": facts["num_dropped"],
        "near_radius": facts["near_radius"],
        "counts": _counts(rows),
        "same_place": " and ".join(within),
        "pairs": [_pair(row, images, class_names) for row in shown],
    }


def _counts(rows: pd.DataFrame) -> list[dict]:
    """Return a row a kind and pair of splits."""
    is_same = rows["label"] == rows["other_label"]
    counted = rows.assign(same_label=is_same, other_label=~is_same)
    columns = ["kind", "split", "other_split"]
    return counted.groupby(columns)[["same_label", "other_label"]].sum().reset_index().to_dict("records")


def _pair(row: dict, images: dict[str, np.ndarray], class_names: list[str]) -> dict:
    sides = []
    for prefix in ("", "other_"):
        key = row[f"{prefix}key"]
        sides.append(
            {
                "key": key,
                "split": row[f"{prefix}split"],
                "class_name": class_names[row[f"{prefix}label"]],
                "image": figures.picture(images[key]) if key in images else None,
            }
        )
    if row["kind"] == "identical":
        return {"sides": sides, "how": "identical bytes"}
    mirrored = ", mirrored" if row["mirrored"] else ""
    return {"sides": sides, "how": f"near: {row['distance']} of {NUM_BITS} bits differ{mirrored}"}
