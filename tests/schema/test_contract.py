"""Tables and JSON are whole or absent, read back as written, and a violation says where and what."""

import json
import random
import resource
import signal
from contextlib import contextmanager

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest

from rootstock.schema.contract import (
    ContractError,
    TableWriter,
    atomic,
    check,
    check_rows,
    fullmatch,
    iterate_table,
    read_facts,
    read_json,
    read_table,
    write_json,
    write_table,
)

SCHEMA = pa.DataFrameSchema(
    {
        "name": pa.Column(str, fullmatch("[a-z]+"), unique=True),
        "low": pa.Column("int64", pa.Check.ge(0)),
        "high": pa.Column("int64"),
    },
    checks=pa.Check(lambda frame: frame["low"] <= frame["high"], error="low <= high"),
    strict=True,
    ordered=True,
    name="Toy",
)
ARROW = pyarrow.schema([("name", pyarrow.string()), ("low", pyarrow.int64()), ("high", pyarrow.int64())])


def frame(names: str = "abc", **columns) -> pd.DataFrame:
    return pd.DataFrame({"name": list(names), "low": range(len(names)), "high": [9] * len(names)} | columns)


def message(call, *arguments, **options) -> str:
    with pytest.raises(ContractError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- golden messages


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"low": [0, -3, 2]}, "row 1, column low: found -3, wanted greater_than_or_equal_to(0)"),
        ({"name": ["a", "B", "c"]}, "row 1, column name: found 'B', wanted a full match of [a-z]+"),
        ({"name": ["a", "b\n", "c"]}, "row 1, column name: found 'b\\n', wanted a full match of [a-z]+"),
        ({"low": [0, 1, 10]}, "row 2: found {'name': 'c', 'low': 10, 'high': 9}, wanted low <= high"),
        ({"extra": [1, 2, 3]}, "column 'extra': found or missing against the wanted columns ['name', 'low', 'high']"),
    ],
)
def test_a_violation_names_file_row_column_found_and_wanted(changed, wanted):
    assert message(check, frame(**changed), SCHEMA, "t.parquet") == f"t.parquet breaks its contract Toy:\n  {wanted}"


def test_a_wrong_type_is_named():
    text = message(check, frame(low=["0", "1", "2"]), SCHEMA, "t.parquet")
    assert "table, column low: found 'str', wanted dtype('int64')" in text


def test_a_missing_column_is_named():
    text = message(check, frame().drop(columns="high"), SCHEMA, "t.parquet")
    assert "column 'high': found or missing against the wanted columns ['name', 'low', 'high']" in text


def test_a_doubled_value_is_named_with_its_rows():
    text = message(check, frame("aba"), SCHEMA, "t.parquet")
    assert "row 0, column name: found 'a'" in text
    assert "row 2, column name: found 'a'" in text


def test_of_many_violations_five_are_shown():
    text = message(check, frame("a" * 9).assign(name=list("ABCDEFGHI")), SCHEMA, "t.parquet")
    assert len(text.splitlines()) == 7
    assert text.endswith("… and 4 more")


# --------------------------------------------------------------------------------------------------- whole or absent


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "made" / "t.parquet"
    write_table(path, [frame("ab"), frame(""), frame("cd")], SCHEMA, ARROW, {"class_names": ["ä"]})
    assert read_table(path, SCHEMA).equals(pd.concat([frame("ab"), frame("cd")], ignore_index=True))
    assert [len(piece) for piece in iterate_table(path, SCHEMA)] == [2, 2]
    assert [list(piece.index) for piece in iterate_table(path, SCHEMA)] == [[0, 1], [2, 3]]
    assert read_facts(path) == {"class_names": ["ä"]}
    assert read_table(path, SCHEMA, ["high"]).columns.tolist() == ["high"]


def test_equal_tables_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, [frame()], SCHEMA, ARROW, {"z": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"pandas" not in (tmp_path / "a").read_bytes()


def test_a_table_without_rows_is_one_too(tmp_path):
    write_table(tmp_path / "t", [], SCHEMA, ARROW, {})
    assert len(read_table(tmp_path / "t", SCHEMA)) == 0
    assert read_facts(tmp_path / "t") == {}


def test_row_numbers_count_from_the_files_start(tmp_path):
    text = message(write_table, tmp_path / "t", [frame("ab"), frame("cD")], SCHEMA, ARROW, {})
    assert "row 3, column name: found 'D'" in text
    assert list(tmp_path.iterdir()) == [], "nothing is left of a table that broke its contract"


def test_what_is_on_the_disk_is_checked_as_well(tmp_path):
    loose = pa.DataFrameSchema({name: pa.Column() for name in ("name", "low", "high")})
    write_table(tmp_path / "t", [frame("ab"), frame("cd", low=[1, 10])], loose, ARROW, {})
    text = message(read_table, tmp_path / "t", SCHEMA)
    assert text.startswith(f"{tmp_path / 't'} breaks its contract Toy:\n  row 3: found")
    assert "row 3, column name" not in text
    assert len(read_table(tmp_path / "t", SCHEMA, ["name"])) == 4, "only the rules of the columns that are read"


def test_any_truncation_and_any_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "t.parquet"
    names = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefgh"]
    whole = pd.DataFrame({"name": names, "low": range(208), "high": range(208)})
    write_table(path, [whole[:100].copy(), whole[100:].copy()], SCHEMA, ARROW, {"fact": 1})
    data, draw = path.read_bytes(), random.Random(0)
    for num_bytes in [0, 1, 8, *draw.sample(range(len(data)), 40), len(data) - 1]:
        path.write_bytes(data[:num_bytes])
        assert str(path) in message(read_table, path, SCHEMA)
        assert str(path) in message(read_facts, path)
    errors = []
    for position in draw.sample(range(len(data)), 250):
        path.write_bytes(data[:position] + bytes([data[position] ^ (1 << draw.randrange(8))]) + data[position + 1 :])
        try:
            assert read_table(path, SCHEMA).equals(whole)
            read_facts(path)
        except ContractError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all(str(path) in text for text in errors)


def test_facts_must_be_there_and_be_json(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "foreign.parquet")
    wanted = f"{tmp_path / 'foreign.parquet'}: found no facts in its metadata; was it written by something else?"
    assert message(read_facts, tmp_path / "foreign.parquet") == wanted
    with pytest.raises(ValueError, match="JSON"):
        write_table(tmp_path / "t", [frame()], SCHEMA, ARROW, {"loss": float("nan")})
    assert not [path for path in tmp_path.iterdir() if path.name != "foreign.parquet"]


def test_a_missing_table_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_table(tmp_path / "absent.parquet", SCHEMA)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_what_was_there(tmp_path, stop):
    path = tmp_path / "t"
    write_table(path, [frame()], SCHEMA, ARROW, {})
    before = path.read_bytes()

    def interrupted() -> None:
        with TableWriter(path, SCHEMA, ARROW) as writer:
            writer.write(frame("xy"))
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def small_disk():
    """No file may grow beyond 2000 bytes, as on a full disk; pytest's own log neither, so the block is short."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    draw = random.Random(0)
    names = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=20)) for _ in range(1000)]
    large = pd.DataFrame({"name": names, "low": range(1000), "high": range(1000)})
    for path, write in (
        (tmp_path / "t.parquet", lambda path: write_table(path, [large], SCHEMA, ARROW, {})),
        (tmp_path / "t.json", lambda path: write_json(path, names)),
    ):
        with small_disk(), pytest.raises(OSError) as caught:  # noqa: PT011
            write(path)
        assert str(path) in "".join([str(caught.value), *caught.value.__notes__])
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    with atomic(tmp_path / "folder" / "file") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "folder" / "file").exists()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


# --------------------------------------------------------------------------------------------------------------- JSON


def test_equal_values_are_equal_json(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [0.1, None]})
    write_json(tmp_path / "b", {"a": [0.1, None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": [0.1, None], "b": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_what_is_not_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert message(read_json, tmp_path / "x.json").startswith(f"{tmp_path / 'x.json'} is not JSON: ")


ROWS = json.loads(frame().to_json(orient="records"))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ({}, "f: rows: found dict, wanted a list of rows"),
        ([], "f: rows: found no rows, wanted a list of rows"),
        ([*ROWS, 3], "f: rows: row 3: found int, wanted keys ['high', 'low', 'name']"),
        ([ROWS[0] | {"path": "/"}], "f: rows: row 0: found ['high', 'low', 'name', 'path'], wanted keys"),
        ([{"name": "a", "low": 1}], "f: rows: row 0: found ['low', 'name'], wanted keys"),
        ([ROWS[0] | {"low": -1}], "row 0, column low: found -1"),
        ([ROWS[0] | {"low": True}], "column low: found 'bool', wanted dtype('int64')"),
        ([ROWS[0] | {"low": None}], "column low"),
    ],
)
def test_rows_of_json_are_rows_of_the_contract(rows, wanted):
    assert check_rows(ROWS, SCHEMA, "f", where="rows").equals(frame())
    assert wanted in message(check_rows, rows, SCHEMA, "f", where="rows")
