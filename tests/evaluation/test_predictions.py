from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rootstock import rng
from rootstock.evaluation import predictions
from rootstock.schema.contract import ContractError, write_table
from rootstock.schema.predictions import PREDICTIONS, PREDICTIONS_ARROW


def rows(split: str, view: str, num_images: int = 6, num_classes: int = 7, first: int = 0) -> pd.DataFrame:
    draw = rng.stream("test-predictions", split, view)
    probabilities = draw.dirichlet(np.ones(num_classes), num_images).astype(np.float32)
    keys = [f"image_{first + index:03d}" for index in range(num_images)]
    labels = draw.integers(0, num_classes, num_images)
    return predictions.table(split=split, view=view, keys=keys, labels=labels, probabilities_NK=probabilities)


@pytest.fixture
def facts() -> dict:
    return {"class_names": list("abcdefg"), "collection": "demo", "trained_on": ["train"]}


def test_round_trip_keeps_every_bit_and_sorts(tmp_path: Path, facts: dict) -> None:
    frames = [rows("val", "center"), rows("test", "ten"), rows("test", "center")]
    predictions.write(tmp_path / "a.parquet", frames, facts=facts)
    predictions.write(tmp_path / "b.parquet", [frame.iloc[::-1] for frame in frames[::-1]], facts=facts)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    frame, found = predictions.read(tmp_path / "a.parquet")
    assert found == facts
    assert frame[["split", "view"]].drop_duplicates().to_numpy().tolist() == [
        ["test", "center"],
        ["test", "ten"],
        ["val", "center"],
    ]
    part = frame[frame["split"] == "val"]
    wanted = np.stack(frames[0]["probabilities"].to_list())
    assert part["probabilities"].iloc[0].dtype == np.float32
    np.testing.assert_array_equal(np.stack(part["probabilities"].to_list()), wanted)


def test_more_rows_than_a_row_group(tmp_path: Path, facts: dict) -> None:
    predictions.write(tmp_path / "a.parquet", [rows("val", "center", num_images=5000)], facts=facts)
    assert len(predictions.read(tmp_path / "a.parquet")[0]) == 5000


def test_top5_is_ranked_and_ties_go_to_the_lower_class() -> None:
    frame = predictions.table(
        split="val", view="center", keys=["a"], labels=np.array([0]), probabilities_NK=np.array([[0.2, 0.3, 0.2, 0.3]])
    )
    assert frame["top5"].iloc[0].tolist() == [1, 3, 0, 2]
    assert frame["predicted"].iloc[0] == 1
    even = np.where(np.arange(1000) % 2, 0.0015, 0.0005)[None]
    frame = predictions.table(split="val", view="center", keys=["a"], labels=np.array([0]), probabilities_NK=even)
    assert frame["top5"].iloc[0].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(view="five"), "column view: found 'five'"),
        (lambda f: f.assign(split="train"), "column split: found 'train'"),
        (lambda f: f.assign(predicted=np.int32(6) - f["predicted"]), r"wanted predicted = top5\[0\]"),
        (lambda f: f.assign(probabilities=[row * 0.9 for row in f["probabilities"]]), "probabilities that sum to 1"),
        (lambda f: f.assign(label=np.int32(7)), "a label below the number of classes"),
        (lambda f: f.assign(key=f["key"].iloc[0]), "found .* more than once"),
        (lambda f: f.iloc[:0], "found no rows"),
    ],
)
def test_a_corrupted_table_is_not_written(tmp_path: Path, facts: dict, change, message: str) -> None:
    with pytest.raises(ContractError, match=message) as error:
        predictions.write(tmp_path / "p.parquet", [change(rows("val", "center"))], facts=facts)
    assert "p.parquet" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_facts_must_fit(tmp_path: Path, facts: dict) -> None:
    frame = rows("val", "center")
    with pytest.raises(ContractError, match="found 7 probabilities a row, wanted 2"):
        predictions.write(tmp_path / "p.parquet", [frame], facts=facts | {"class_names": ["a", "b"]})
    with pytest.raises(ContractError, match="facts: found"):
        predictions.write(tmp_path / "p.parquet", [frame], facts={"class_names": list("abcdefg")})


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (lambda f: f.iloc[::-1], "out of order"),
        # in two row groups, where the contract of one cannot see it
        (lambda f: pd.concat([f, f]), "more than once"),
    ],
)
def test_reading_keeps_the_rules_across_row_groups(tmp_path: Path, facts: dict, disturb, message: str) -> None:
    frame = disturb(rows("val", "center", num_images=4))
    pieces = [frame.iloc[:4], frame.iloc[4:]] if len(frame) > 4 else [frame]
    write_table(tmp_path / "p.parquet", pieces, PREDICTIONS, PREDICTIONS_ARROW, facts)
    with pytest.raises(ContractError, match=message):
        predictions.read(tmp_path / "p.parquet")


def test_complete_tables_pass_and_incomplete_ones_name_their_keys() -> None:
    frame = pd.concat([rows("val", "center"), rows("val", "ten"), rows("test", "center"), rows("test", "ten")])
    keys = [f"image_{index:03d}" for index in range(6)]
    views = ["center", "ten"]
    predictions.assert_complete(frame, keys_by_split={"val": keys, "test": keys}, views=views)

    lost = frame[~((frame["split"] == "test") & (frame["view"] == "ten") & (frame["key"] == "image_003"))]
    doubled = pd.concat([lost, rows("val", "center", num_images=1)])
    with pytest.raises(ValueError, match="not complete") as error:
        predictions.assert_complete(doubled, keys_by_split={"val": keys, "test": keys[:5]}, views=views)
    assert str(error.value).splitlines()[1:] == [
        "  split test, view center: 1 unexpected: image_005",
        "  split test, view ten: 1 missing: image_003",
        "  split test, view ten: 1 unexpected: image_005",
        "  split val, view center: 1 more than once: image_000",
    ]


def test_a_missing_view_is_not_complete() -> None:
    with pytest.raises(ValueError, match=r"split val, view ten: 6 missing: image_000, .* …"):
        predictions.assert_complete(
            rows("val", "center"),
            keys_by_split={"val": [f"image_{index:03d}" for index in range(6)]},
            views=["center", "ten"],
        )
