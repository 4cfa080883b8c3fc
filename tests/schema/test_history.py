"""The contract of a training's curve finds what was changed, and equal curves are equal bytes."""

import pytest

from rootstock.schema import history
from rootstock.schema.contract import ContractError

ROWS = [
    {
        "epoch": epoch,
        "step": 10 * epoch,
        "lr": 0.1 / epoch,
        "train_loss": 2.0,
        "train_top1": 1 / 3,
        "val_loss": 1e-17,
        "val_top1": 1.0,
    }
    for epoch in (1, 2, 3)
]


def test_a_curve_is_read_as_it_was_written(tmp_path):
    history.write(tmp_path / "a.csv", ROWS)
    history.write(tmp_path / "b.csv", ROWS)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert history.read(tmp_path / "a.csv").to_dict("records") == ROWS
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "1,10,0.1,2.0,0.3333333333333333,1e-17,1.0"


MUTATIONS = {
    "an accuracy above one": (1, "val_top1", 1.5, r"row 1, column val_top1: found 1.5"),
    "a negative loss": (2, "train_loss", -0.1, r"row 2, column train_loss: found -0.1, wanted a finite number >= 0"),
    "an infinite loss": (2, "val_loss", float("inf"), r"row 2, column val_loss: found inf"),
    "a loss that is no number": (0, "val_loss", float("nan"), r"row 0, column val_loss: found nan"),
    "a negative rate": (0, "lr", -1.0, r"row 0, column lr: found -1"),
    "no step": (0, "step", 0, r"row 0, column step: found 0"),
    "a missing epoch": (1, "epoch", 3, r"row 1: found .*'epoch': 3.*wanted epochs 1, 2, 3"),
    "a step that goes back": (2, "step", 15, r"row 2: found .*'step': 15.*wanted steps that grow"),
    "a step that stands": (2, "step", 20, r"row 2: found .*wanted steps that grow"),
}


@pytest.mark.parametrize(("row", "name", "value", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_curve_is_found_in_writing_and_reading(tmp_path, row, name, value, message):
    rows = [dict(one) for one in ROWS]
    rows[row][name] = value
    with pytest.raises(ContractError, match=message):
        history.write(tmp_path / "h.csv", rows)
    assert list(tmp_path.iterdir()) == []
    lines = [",".join(rows[0]), *(",".join(str(cell) for cell in one.values()) for one in rows)]
    (tmp_path / "h.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ContractError, match=message):
        history.read(tmp_path / "h.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "h.csv is not CSV with a header"),
        (b"\xff\xfe\x00", "h.csv is not CSV with a header"),
        (b"epoch,step\n1,2,3\n", "h.csv: row 0: found 3 values, wanted 2"),
        (
            b"epoch,step,lr,train_loss,train_top1,val_loss,val_top1\n1,10,fast,2.0,0.3,1.0,1.0\n",
            "row 0, column lr: found 'fast', wanted float",
        ),
        (b"epoch,step,lr,train_loss,train_top1,val_loss\n1,10,0.1,2.0,0.3,1.0\n", "'val_top1'"),
        (
            b"epoch,step,lr,train_loss,train_top1,val_loss,val_top1\n1.5,10,0.1,2.0,0.3,1.0,1\n",
            "row 0, column epoch: found '1.5', wanted int",
        ),
    ],
)
def test_what_is_no_curve_is_named(tmp_path, content, message):
    (tmp_path / "h.csv").write_bytes(content)
    with pytest.raises(ContractError, match=message):
        history.read(tmp_path / "h.csv")
