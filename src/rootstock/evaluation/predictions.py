"""The predictions table: made, written, read, and proved complete.

Layout: N images, K classes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rootstock.schema.contract import ROWS_PER_GROUP, ContractError, read_facts, read_table, write_table
from rootstock.schema.predictions import PREDICTIONS, PREDICTIONS_ARROW

ORDER = ["split", "view", "key"]
FACTS = {"class_names", "collection", "trained_on"}
NUM_BEST = 5


def table(*, split: str, view: str, keys: list[str], labels: np.ndarray, probabilities_NK: np.ndarray) -> pd.DataFrame:
    """Make the rows of one split and view.

    Args:
        split: `val` or `test`.
        view: `center` or `ten`.
        keys: N keys of the manifest.
        labels: integers (N,), the true classes.
        probabilities_NK: float32 (N, K), each row sums to 1.

    Returns:
        A frame with the columns of `rootstock.schema.predictions`; equal probabilities are ranked by class index.
    """
    probabilities_NK = np.ascontiguousarray(probabilities_NK, dtype=np.float32)
    assert len(keys) == len(labels) == len(probabilities_NK), (len(keys), len(labels), probabilities_NK.shape)
    best = np.argsort(-probabilities_NK, axis=1, kind="stable")[:, :NUM_BEST].astype(np.int32)
    return pd.DataFrame(
        {
            "split": pd.Series([split] * len(keys), dtype=str),
            "view": pd.Series([view] * len(keys), dtype=str),
            "key": pd.Series(keys, dtype=str),
            "label": np.asarray(labels, dtype=np.int32),
            "predicted": best[:, 0],
            "top5": pd.Series(list(best), dtype=object),
            "probabilities": pd.Series(list(probabilities_NK), dtype=object),
        }
    )


def write(path: Path, frames: Iterable[pd.DataFrame], *, facts: dict) -> None:
    """Write the tables of all splits and views, sorted by split, view and key.

    Args:
        path: the parquet file.
        frames: tables made by `table`, in any order.
        facts: `class_names` (list, index = label), `collection` (name), `trained_on` (list of splits).

    Raises:
        ContractError: a row breaks the contract, a row is there twice, or the facts do not fit the table.
    """
    frame = pd.concat(list(frames), ignore_index=True).sort_values(ORDER, ignore_index=True)
    _check_whole(frame, facts, path)
    write_table(path, _pieces(frame), PREDICTIONS, PREDICTIONS_ARROW, facts)


def read(path: Path) -> tuple[pd.DataFrame, dict]:
    """Read and check a predictions table.

    Returns:
        The frame (`probabilities` float32 (K,) and `top5` int32 (min(5, K),) in each row) and its facts.

    Raises:
        ContractError: naming file, row, column, value found and value wanted.
    """
    frame, facts = read_table(path, PREDICTIONS), read_facts(path)
    _check_whole(frame, facts, path)
    return frame, facts


def assert_complete(frame: pd.DataFrame, *, keys_by_split: Mapping[str, Iterable[str]], views: Iterable[str]) -> None:
    """Prove that each wanted image is there exactly once a view, and nothing else.

    Args:
        frame: a predictions table.
        keys_by_split: the keys each split must hold; splits that are not named must not be in the frame.
        views: the views each split must have.

    Raises:
        ValueError: naming split, view and the first missing, unexpected or double keys.
    """
    wanted = {(split, view): set(keys) for split, keys in keys_by_split.items() for view in views}
    found = {name: Counter(rows) for name, rows in frame.groupby(["split", "view"])["key"]}
    problems = []
    for split, view in sorted(wanted.keys() | found.keys()):
        keys, counts = wanted.get((split, view), set()), found.get((split, view), Counter())
        for word, wrong in (
            ("missing", keys - counts.keys()),
            ("unexpected", counts.keys() - keys),
            ("more than once", {key for key, count in counts.items() if count > 1}),
        ):
            if wrong:
                first = ", ".join(sorted(wrong)[:5]) + (" …" if len(wrong) > 5 else "")
                problems.append(f"split {split}, view {view}: {len(wrong)} {word}: {first}")
    if problems:
        raise ValueError("the predictions are not complete:\n  " + "\n  ".join(problems))


def _pieces(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), ROWS_PER_GROUP):
        yield frame.iloc[start : start + ROWS_PER_GROUP]


def _check_whole(frame: pd.DataFrame, facts: dict, path: Path) -> None:
    """Keep the rules across rows and between rows and facts, which the contract of a row group cannot see."""
    if set(facts) != FACTS:
        raise ContractError(f"{path}: facts: found {sorted(facts)}, wanted {sorted(FACTS)}")
    if frame.empty:
        raise ContractError(f"{path}: found no rows, wanted at least one")
    num_classes = len(frame["probabilities"].iloc[0])
    if len(facts["class_names"]) != num_classes:
        raise ContractError(
            f"{path}: found {num_classes} probabilities a row, wanted {len(facts['class_names'])}, one a class name"
        )
    index = pd.MultiIndex.from_frame(frame[ORDER])
    if index.has_duplicates:
        raise ContractError(
            f"{path}: found {index[index.duplicated()][0]} more than once, wanted each image once a view"
        )
    if not index.is_monotonic_increasing:
        raise ContractError(f"{path}: found rows out of order, wanted them sorted by {', '.join(ORDER)}")
