"""Promotion: the ledger reports/promotions.jsonl, one line a decision or rollback; what a champion was trained on.

The ledger is the truth about which model is the champion; MLflow's registry mirrors it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow

from rootstock.schema.contract import ContractError, atomic, check, fullmatch, read_table, write_table
from rootstock.schema.names import SHA256
from rootstock.schema.predictions import VIEWS
from rootstock.schema.run import TIME

PROMOTE, REFUSE, ROLLBACK = ACTIONS = ("promote", "refuse", "rollback")
PLAIN = pa.DataFrameSchema(
    {
        "number": pa.Column("int64"),  # 1, 2, … in the file's order
        "time": pa.Column(str, fullmatch(TIME)),
        "action": pa.Column(str, pa.Check.isin(ACTIONS)),
        "model": pa.Column(str, fullmatch("[a-z0-9-]+")),  # the registry's name
        "reason": pa.Column(str, nullable=True),  # in a person's words, of a rollback or where the champion was lost
        "version": pa.Column(str, fullmatch("[0-9]+"), nullable=True),  # the registry's; null: it was out of reach
    },
    checks=pa.Check(lambda frame: frame["number"] == frame.index, error="number 1 for the first line, 2 for the next"),
    strict=True,
    ordered=True,
    name="Promotions",
)
KEYS = {*PLAIN.columns, "challenger", "champion_after", "champion_before", "data", "verdict"}
MODEL = {"replica", "dvc_hash", "run_id", "git_revision"}  # the hash of models/finetune/<replica>, as in dvc.lock
CHAMPION = {*MODEL, "bundle_hash"}  # the hash of models/champions/<model>
DATA = {"shards", "manifest", "split", "view", "num_images", "keys_sha256"}
VERDICT = {"promoted", "checks", "evidence"}
CHECK = {"name", "passed", "found", "wanted", "text"}

TRAINED_ON = pa.DataFrameSchema(
    {"sha256": pa.Column(str, fullmatch(SHA256), unique=True)}, strict=True, ordered=True, name="TrainedOn"
)
TRAINED_ON_ARROW = pyarrow.schema([("sha256", pyarrow.string())])


def read(path: Path) -> list[dict]:
    """Read and check the ledger's lines, oldest first; none where there is no file.

    Raises:
        ContractError: naming file, line, key, value found and value wanted.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ContractError(
                f"{path}: line {number} is not JSON: {error}; after a merge of two branches keep the lines of the "
                "branch whose champion shall stay"
            ) from None
    return _checked(lines, path)


def append(path: Path, line: dict) -> None:
    """Add a line; the file is written anew and renamed, so that a crash leaves no half line.

    Raises:
        ContractError: the line does not follow from those before it.
    """
    lines = _checked([*read(path), line], path)
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(one, sort_keys=True, allow_nan=False)}\n" for one in lines))


def champion(lines: Iterable[dict], model: str) -> dict | None:
    """Return a model's present champion by the ledger; None before its first promotion."""
    found = reigns(lines, model)
    return found[-1] if found else None


def reigns(lines: Iterable[dict], model: str) -> list[dict]:
    """Return the champions that a rollback may go back through, the present one last."""
    found: list[dict] = []
    for line in lines:
        if line["model"] == model:
            _reign(found, line)
    return found


def _reign(reigns: list[dict], line: dict) -> None:
    if line["action"] == PROMOTE:
        reigns.append(line["champion_after"])
    elif line["action"] == ROLLBACK:
        reigns.pop()


def now() -> str:
    """Return the time as the ledger has it: UTC, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_trained_on(path: Path, sums: Iterable[str]) -> None:
    """Write the sha256 of every image that a model was trained on."""
    frame = pd.DataFrame({"sha256": pd.Series(sorted(set(sums)), dtype=str)})
    write_table(path, [frame], TRAINED_ON, TRAINED_ON_ARROW, {})


def read_trained_on(path: Path) -> set[str]:
    """Read the sha256 of every image that a model was trained on."""
    return set(read_table(path, TRAINED_ON)["sha256"])


def _checked(lines: list, path: Path) -> list[dict]:
    for number, line in enumerate(lines, start=1):
        _keys(line, KEYS, path, f"line {number}")
    if not lines:
        return []
    plain = pd.DataFrame([{name: line[name] for name in PLAIN.columns} for line in lines])
    nullable = {name: str for name in ("reason", "version") if plain[name].isna().all()}  # no type of its own
    plain.index = pd.RangeIndex(1, len(lines) + 1)
    check(plain.astype(nullable), PLAIN, path)
    reigns_of: dict[str, list[dict]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        _check_parts(line, path, where)
        reigns = reigns_of[line["model"]]
        before = reigns[-1] if reigns else None
        if line["champion_before"] != before:
            raise ContractError(
                f"{path}: {where}: champion_before: found {_name(line['champion_before'])}, wanted {_name(before)}, "
                "the champion after the line before"
            )
        if line["action"] == ROLLBACK:
            earlier = reigns[-2] if len(reigns) > 1 else None
            is_earlier = earlier is not None and line["champion_after"] == earlier
            _wanted(is_earlier, path, where, f"a rollback to the champion before the present one: {_name(earlier)}")
        _reign(reigns, line)
    return lines


def _check_parts(line: dict, path: Path, where: str) -> None:
    for key in ("champion_before", "champion_after"):
        if line[key] is not None:
            _keys(line[key], CHAMPION, path, f"{where}: {key}")
    decided = ("challenger", "data", "verdict")
    if line["action"] == ROLLBACK:
        _wanted(all(line[key] is None for key in decided), path, where, f"null for {', '.join(decided)} of a rollback")
        _wanted(line["champion_after"] is not None, path, where, "a champion after a rollback")
        return
    _keys(line["challenger"], MODEL, path, f"{where}: challenger")
    _check_data(line["data"], path, f"{where}: data")
    _check_verdict(line["verdict"], path, f"{where}: verdict")
    alone = line["champion_before"] is not None and line["verdict"]["evidence"].get("champion") is None
    wanted = (
        "null for reason, unless a champion was lost and nobody judged against: the verdict has a decision's reasons"
    )
    _wanted(line["reason"] is None or alone, path, where, wanted)
    promoted = line["verdict"]["promoted"]
    _wanted(promoted == (line["action"] == PROMOTE), path, where, f"action {PROMOTE if promoted else REFUSE}")
    if promoted:
        after = line["champion_after"]
        is_challenger = after is not None and {key: after[key] for key in MODEL} == line["challenger"]
        _wanted(is_challenger, path, where, "the challenger as the champion after a promotion")
    else:
        _wanted(line["champion_after"] == line["champion_before"], path, where, "the same champion after a refusal")


def _check_data(data: object, path: Path, where: str) -> None:
    _keys(data, DATA, path, where)
    _wanted(data["split"] == "val", path, where, "split 'val': test never decides anything")
    _wanted(data["view"] in VIEWS, path, where, f"a view of {list(VIEWS)}")
    _wanted(isinstance(data["num_images"], int) and data["num_images"] >= 0, path, where, "num_images of at least 0")


def _check_verdict(verdict: object, path: Path, where: str) -> None:
    _keys(verdict, VERDICT, path, where)
    _wanted(
        isinstance(verdict["checks"], list) and bool(verdict["checks"]), path, where, "a list of at least one check"
    )
    evidence = verdict["evidence"]
    _wanted(
        isinstance(evidence, dict) and isinstance(evidence.get("limits"), dict), path, where, "evidence with limits"
    )
    for row, one in enumerate(verdict["checks"]):
        _keys(one, CHECK, path, f"{where}: checks: row {row}")
    passed = all(one["passed"] for one in verdict["checks"])
    _wanted(verdict["promoted"] == passed, path, where, f"promoted {str(passed).lower()}, as the checks say")


def _name(champion: dict | None) -> str:
    return "none" if champion is None else f"{champion['replica']} ({champion['bundle_hash']})"


def _keys(value: object, wanted: set[str], path: Path, where: str) -> None:
    if not isinstance(value, dict) or set(value) != wanted:
        found = f"keys {sorted(value)}" if isinstance(value, dict) else type(value).__name__
        raise ContractError(f"{path}: {where}: found {found}, wanted keys {sorted(wanted)}")


def _wanted(holds: bool, path: Path, where: str, wanted: str) -> None:
    if not holds:
        raise ContractError(f"{path}: {where}: found otherwise, wanted {wanted}")
