"""The ledger's contract finds what was changed, within a line and between lines."""

import copy
import json

import pytest

from rootstock.schema import promotion
from rootstock.schema.contract import ContractError

FIRST = {"replica": "full-0", "dvc_hash": "a.dir", "run_id": None, "git_revision": None}
SECOND = {**FIRST, "replica": "full-1", "dvc_hash": "b.dir"}
CHAMPION = {**FIRST, "bundle_hash": "c.dir"}
CHECK = {"name": "better", "passed": True, "found": 0.01, "wanted": 0.05, "text": "better"}
EVIDENCE = {"limits": {"level": 0.05}, "champion": {"top1": 0.5}}
DATA = {"shards": "s.dir", "manifest": "m", "split": "val", "view": "center", "num_images": 60, "keys_sha256": "k"}
PLAIN = {"time": "2026-01-01T00:00:00Z", "model": "demo", "reason": None, "version": None}
PROMOTED = {
    **PLAIN, "number": 1, "action": "promote", "challenger": FIRST, "data": DATA, "champion_before": None,
    "champion_after": CHAMPION, "verdict": {"promoted": True, "checks": [CHECK], "evidence": EVIDENCE}, "version": "1",
}  # fmt: skip
REFUSED = {
    **PLAIN, "number": 2, "action": "refuse", "challenger": SECOND, "data": DATA, "champion_before": CHAMPION,
    "champion_after": CHAMPION,
    "verdict": {"promoted": False, "checks": [CHECK, {**CHECK, "passed": False}], "evidence": EVIDENCE},
}  # fmt: skip
NEXT = {**SECOND, "bundle_hash": "d.dir"}
REPLACED = {**PROMOTED, "number": 3, "challenger": SECOND, "champion_before": CHAMPION, "champion_after": NEXT}
BACK = {
    **PLAIN, "number": 4, "action": "rollback", "challenger": None, "data": None, "verdict": None, "reason": "slow",
    "champion_before": NEXT, "champion_after": CHAMPION, "version": "1",
}  # fmt: skip
WHOLE = [PROMOTED, REFUSED, REPLACED, BACK]


def write(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_lines_are_appended_and_read(tmp_path):
    ledger = tmp_path / "reports/promotions.jsonl"
    assert promotion.read(ledger) == []
    for number, line in enumerate(WHOLE, start=1):
        promotion.append(ledger, line)
        assert promotion.read(ledger) == WHOLE[:number]
    assert len(ledger.read_text().splitlines()) == 4
    assert [path.name for path in ledger.parent.iterdir()] == ["promotions.jsonl"], "no temporary is left"


def test_a_line_that_does_not_follow_changes_nothing(tmp_path):
    ledger = tmp_path / "l"
    promotion.append(ledger, PROMOTED)
    before = ledger.read_bytes()
    with pytest.raises(ContractError, match=r"row 2: found .*wanted number 1 for the first line, 2 for the next"):
        promotion.append(ledger, {**REFUSED, "number": 3})
    assert ledger.read_bytes() == before


def test_a_reason_says_that_a_lost_champion_was_not_compared_with(tmp_path):
    alone = {**REFUSED["verdict"], "evidence": {**EVIDENCE, "champion": None}}
    promotion.append(tmp_path / "l", PROMOTED)
    promotion.append(tmp_path / "l", {**REFUSED, "reason": "lost", "verdict": alone})
    assert promotion.read(tmp_path / "l")[1]["reason"] == "lost"


def test_reigns_are_what_rollbacks_go_back_through():
    assert [promotion.reigns(WHOLE[:number], "demo") for number in range(5)] == [
        [], [CHAMPION], [CHAMPION], [CHAMPION, NEXT], [CHAMPION],
    ]  # fmt: skip


def test_the_champion_is_each_models_last(tmp_path):
    other = {**PROMOTED, "number": 5, "model": "other", "champion_after": {**CHAMPION, "bundle_hash": "e.dir"}}
    promotion_lines = [*WHOLE, other]
    write(tmp_path / "l", promotion_lines)
    lines = promotion.read(tmp_path / "l")
    assert promotion.champion(lines, "demo") == CHAMPION
    assert promotion.champion(lines, "other")["bundle_hash"] == "e.dir"
    assert promotion.champion(lines, "new") is None


def change(number, *place, value):
    lines = copy.deepcopy(WHOLE)
    inner = lines[number - 1]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return lines


MUTATIONS = {
    "a line that is lost": (WHOLE[:1] + WHOLE[2:], "row 2: found .*number"),
    "two lines exchanged": ([WHOLE[0], WHOLE[2], WHOLE[1], WHOLE[3]], "number"),
    "a champion out of nowhere": (
        change(3, "champion_before", value=NEXT),
        r"line 3: champion_before: found full-1 \(d.dir\), wanted full-0 \(c.dir\), the champion after the line before",
    ),
    "a champion forgotten": (change(2, "champion_before", value=None), r"line 2: found otherwise|found none, wanted"),
    "a promotion of another": (
        change(1, "champion_after", "dvc_hash", value="x.dir"),
        "line 1: found otherwise, wanted the challenger as the champion after a promotion",
    ),
    "a refusal that changes the champion": (
        change(2, "champion_after", value=NEXT),
        "line 2: found otherwise, wanted the same champion after a refusal",
    ),
    "promoted against a check": (
        change(1, "verdict", "checks", 0, "passed", value=False),
        "line 1: verdict: found otherwise, wanted promoted false, as the checks say",
    ),
    "an action that is not the verdict's": (change(1, "action", value="refuse"), "line 1: .*wanted action promote"),
    "decided on test": (
        change(1, "data", "split", value="test"),
        "line 1: data: found otherwise, wanted split 'val': test never decides anything",
    ),
    "no checks": (change(1, "verdict", "checks", value=[]), "line 1: verdict: .*wanted a list of at least one check"),
    "a check without words": (
        change(1, "verdict", "checks", 0, value={"name": "better"}),
        r"line 1: verdict: checks: row 0: found keys \['name'\], wanted keys \['found', 'name', 'passed', 'text', 'wa",
    ),
    "a reason for a refusal": (change(2, "reason", value="no"), "line 2: .*wanted null for reason"),
    "a rollback to nobody": (change(4, "champion_after", value=None), "line 4: .*wanted a champion after a rollback"),
    "a rollback with a verdict": (change(4, "data", value=DATA), "line 4: .*wanted null for challenger, data, verdict"),
    "a rollback to a stranger": (
        change(4, "champion_after", value={**CHAMPION, "bundle_hash": "x.dir"}),
        r"line 4: .*wanted a rollback to the champion before the present one: full-0 \(c.dir\)",
    ),
    "a rollback to the present one": (
        [PROMOTED, {**BACK, "number": 2, "champion_before": CHAMPION}],
        "line 2: .*wanted a rollback to the champion before the present one: none",
    ),
    "a rollback from nobody": (
        [{**BACK, "number": 1, "champion_before": None}], "line 1: .*wanted a rollback to the champion before the pre"
    ),
    "checks that are no list": (change(1, "verdict", "checks", value={"better": CHECK}), "line 1: .*wanted a list of"),
    "a number of checks": (change(1, "verdict", "checks", value=5), "line 1: verdict: .*wanted a list of at least one"),
    "evidence without limits": (change(1, "verdict", "evidence", value={}), "line 1: .*wanted evidence with limits"),
    "evidence that is text": (change(2, "verdict", "evidence", value="x"), "line 2: .*wanted evidence with limits"),
    "an unknown action": (change(1, "action", value="crown"), "row 1, column action: found 'crown'"),
    "a local time": (change(1, "time", value="2026-01-01T00:00:00+02:00"), "row 1, column time"),
    "a version in words": (change(1, "version", value="first"), "row 1, column version: found 'first'"),
    "a key too many": ([{**PROMOTED, "by": "me"}], "line 1: found keys .*'by'"),
    "a view that is none": (change(1, "data", "view", value="five"), "line 1: data: .*wanted a view of"),
    "a champion without its bundle": (
        [{**PROMOTED, "champion_after": FIRST}], "line 1: champion_after: found keys .*wanted keys .*bundle_hash"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_changed_ledger_is_found(tmp_path, lines, message):
    write(tmp_path / "l", lines)
    with pytest.raises(ContractError, match=message) as caught:
        promotion.read(tmp_path / "l")
    assert str(caught.value).startswith(str(tmp_path / "l"))


def test_a_merge_conflict_is_named_with_its_line_and_a_way_out(tmp_path):
    (tmp_path / "l").write_text(f"{json.dumps(PROMOTED)}\n<<<<<<< HEAD\n")
    with pytest.raises(ContractError, match=r"line 2 is not JSON: .*after a merge of two branches keep the lines"):
        promotion.read(tmp_path / "l")


def test_what_a_model_was_trained_on_is_a_set_of_sums(tmp_path):
    sums = ["b" * 64, "a" * 64, "b" * 64]
    promotion.write_trained_on(tmp_path / "t.parquet", sums)
    assert promotion.read_trained_on(tmp_path / "t.parquet") == set(sums)
    first = (tmp_path / "t.parquet").read_bytes()
    promotion.write_trained_on(tmp_path / "t.parquet", reversed(sums))
    assert (tmp_path / "t.parquet").read_bytes() == first, "equal sets give equal bytes"


@pytest.mark.parametrize("wrong", ["A" * 64, "a" * 63, ""])
def test_a_sum_that_is_none_is_refused(tmp_path, wrong):
    with pytest.raises(ContractError, match="row 0, column sha256"):
        promotion.write_trained_on(tmp_path / "t.parquet", [wrong])
