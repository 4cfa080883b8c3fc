"""The one door to pandera and to parquet: a table is checked when it is written and again when it is read.

A violation names the file, the row, the column, the value found and the value wanted.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet

ROWS_PER_GROUP = 4096


class ContractError(ValueError):
    """A table or a file that does not hold what its contract promises."""


def fullmatch(pattern: str) -> pa.Check:
    """Return a check that the whole of each string matches; pandera's own `str_matches` leaves the end open."""
    return pa.Check(lambda column: column.str.fullmatch(pattern), error=f"a full match of {pattern}")


def check(frame: pd.DataFrame, schema: pa.DataFrameSchema, file: Path | str) -> pd.DataFrame:
    """Return `frame` if it satisfies `schema`.

    Raises:
        ContractError: naming `file`, and for the first violations row, column, value found and check that failed.
    """
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = _one_a_row(error.failure_cases)
        lines = [_describe(case, schema) for case in cases[:5]]
        more = f"\n  … and {len(cases) - 5} more" if len(cases) > 5 else ""
        raise ContractError(f"{file} breaks its contract {schema.name}:\n  " + "\n  ".join(lines) + more) from None


def _one_a_row(cells: pd.DataFrame) -> list[dict]:
    """Join the cells of a row that breaks a rule across columns: pandera lists each of them as a case."""
    cases: dict[tuple, dict] = {}
    for number, cell in enumerate(cells.to_dict("records")):
        across = cell["schema_context"] == "DataFrameSchema" and not pd.isna(cell["index"])
        case = cases.setdefault((cell["check"], cell["index"]) if across else (number,), cell)
        if across and np.isscalar(value := cell["failure_case"]):
            found = case["failure_case"] if case is not cell else {}
            case["failure_case"] = {**found, cell["column"]: value}
    return list(cases.values())


def _describe(case: dict, schema: pa.DataFrameSchema) -> str:
    wanted = case["check"]
    if wanted in ("column_in_schema", "column_in_dataframe", "column_ordered"):
        return f"column {case['failure_case']!r}: found or missing against the wanted columns {list(schema.columns)}"
    row = "table" if pd.isna(case["index"]) else f"row {case['index']}"
    column = "" if case["schema_context"] == "DataFrameSchema" else f", column {case['column']}"
    return f"{row}{column}: found {case['failure_case']!r}, wanted {wanted}"


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success make it durable under its name, on failure remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        error.add_note(f"while writing {path}")  # a full disk's error names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` with sorted keys, so that equal values give equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        ContractError: naming the file when it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} is not JSON: {error}") from None


def check_rows(rows: object, schema: pa.DataFrameSchema, file: Path | str, *, where: str) -> pd.DataFrame:
    """Return rows read from JSON as a checked frame.

    Args:
        where: the rows' key in the file.

    Raises:
        ContractError: not a list of mappings, no row, a row with other keys than the columns, or a broken rule.
    """
    wanted = sorted(schema.columns)
    if not isinstance(rows, list) or not rows:
        found = "no rows" if rows == [] else type(rows).__name__
        raise ContractError(f"{file}: {where}: found {found}, wanted a list of rows")
    for number, row in enumerate(rows):
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        if found != wanted:
            raise ContractError(f"{file}: {where}: row {number}: found {found}, wanted keys {wanted}")
    return check(pd.DataFrame(rows, columns=list(schema.columns)), schema, file)


class TableWriter:
    """Writes checked frames as one parquet file, a row group a frame, so that memory does not grow with the rows.

    The file appears under its name when the `with` block ends without an error. `facts` (JSON values kept in the
    file's metadata, read back by `read_facts`) may be set until then.
    """

    def __init__(self, path: Path, schema: pa.DataFrameSchema, arrow: pyarrow.Schema, facts: dict | None = None):
        """Prepare to write `path`.

        Args:
            arrow: the columns' types on disk.
            facts: class names, decoder …; may be set later as an attribute.
        """
        self.facts = facts or {}
        self._path, self._schema, self._arrow = path, schema, arrow
        self._rows = 0

    def __enter__(self) -> "TableWriter":
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic(self._path))
            self._writer = stack.enter_context(
                pyarrow.parquet.ParquetWriter(temporary, self._arrow, compression="zstd", write_page_checksum=True)
            )
            self._stack = stack.pop_all()
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Check and write some rows; a rule across frames is the caller's to keep."""
        if len(frame) == 0:
            return
        frame.index = pd.RangeIndex(self._rows, self._rows + len(frame))
        self._rows += len(frame)
        check(frame, self._schema, self._path)
        self._writer.write_table(pyarrow.Table.from_pandas(frame, schema=self._arrow, preserve_index=False))

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._stack.callback(self._add_facts)  # the first thing done on leaving
        self._stack.__exit__(kind, error, trace)

    def _add_facts(self) -> None:
        self._writer.add_key_value_metadata({"facts": json.dumps(self.facts, sort_keys=True, allow_nan=False)})


def write_table(
    path: Path, frames: Iterable[pd.DataFrame], schema: pa.DataFrameSchema, arrow: pyarrow.Schema, facts: dict
) -> None:
    """Write a table in pieces; see `TableWriter`."""
    with TableWriter(path, schema, arrow, facts) as writer:
        for frame in frames:
            writer.write(frame)


def read_facts(path: Path) -> dict:
    """Return the facts that `write_table` kept in the file's metadata.

    Raises:
        ContractError: the file is no parquet file, or carries no facts.
    """
    metadata = _open(path).metadata.metadata or {}
    try:
        return json.loads(metadata[b"facts"])
    except (KeyError, ValueError):
        raise ContractError(f"{path}: found no facts in its metadata; was it written by something else?") from None


def read_table(path: Path, schema: pa.DataFrameSchema, columns: list[str] | None = None) -> pd.DataFrame:
    """Read and check a whole table; with `columns`, only these (and only their own rules are checked)."""
    return pd.concat(list(iterate_table(path, schema, columns)), ignore_index=True)


def iterate_table(path: Path, schema: pa.DataFrameSchema, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """Yield a table's checked row groups in order; row numbers in errors count from the start of the file."""
    file = _open(path)
    if columns is not None:
        schema = pa.DataFrameSchema({name: schema.columns[name] for name in columns}, strict=True, name=schema.name)
    start = 0
    for group in range(file.num_row_groups):
        with _readable(path):
            frame = file.read_row_group(group, columns=columns).to_pandas()
        frame.index = pd.RangeIndex(start, start + len(frame))
        start += len(frame)
        yield check(frame, schema, path)
    if file.num_row_groups == 0:
        with _readable(path):
            frame = file.read(columns=columns).to_pandas()
        yield check(frame, schema, path)


def _open(path: Path) -> pyarrow.parquet.ParquetFile:
    with _readable(path):
        return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in errors about damaged bytes: Arrow raises an OSError without errno for some of them."""
    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ContractError(f"{path} is not a whole parquet file: {error}") from None
