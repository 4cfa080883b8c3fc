"""Promotion and rollback: the ledger says who is the champion; its folder, DVC and MLflow's registry follow.

A change of champion is written to `.rootstock/promotion/pending.json` first, then carried out step by step, the
ledger's line last. Whatever kills us in between, the next `promote` or `rollback` goes on from that file, and no step
is done twice.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.promote import Promote
from rootstock.evaluation import gate
from rootstock.evaluation.serving import Serving
from rootstock.ops.locks import stage_lock
from rootstock.ops.promotion import challenger as challengers
from rootstock.ops.promotion import champion as champions
from rootstock.ops.promotion import gate_run, precedent
from rootstock.ops.promotion.registry import ALIAS, Registry
from rootstock.ops.store import StoreError
from rootstock.schema import promotion as ledger
from rootstock.schema.contract import read_json, write_json

WAY_OUT = (
    'or, where nobody has it: `rootstock promote --without-champion "why"` judges the challenger against nobody, and '
    "the ledger says so"
)


class PromotionError(ValueError):
    """A promotion or rollback that cannot be made; the message says why and what to do."""


def promote(*, without_champion: str | None = None) -> dict:
    """Judge the selected replica against the champion; it takes the champion's place where it is shown to be better.

    The decision is printed, and what had to be mended before it.

    Args:
        without_champion: in a person's words, why a champion whose files are nowhere to be had shall not be compared
            with; None: it must be had.

    Returns:
        The ledger's line; an old one, and nothing is written, where the same was decided before.

    Raises:
        ValueError: an experiment asks, the tree is half reproduced, the champion cannot be brought back, or one that
            is here shall be passed over.
        FileNotFoundError: nothing has been reproduced yet.
    """
    with _alone("promote"):
        limits = load_section(layout.PARAMS, Promote, "promote")
        lines, is_lost = _begin(limits.model, without_champion=without_champion)
        champion = ledger.champion(lines, limits.model)
        challenger = challengers.find()
        serving = gate_run.serving_of(challenger, challengers.SHARDS)
        folder = layout.champion(limits.model) if champion and not is_lost else None
        images = gate_run.choose(challenger, shards=challengers.SHARDS, champion=folder)
        line = _line(lines, limits.model) | {
            "challenger": challenger.record,
            "reason": without_champion,
            "data": {
                "shards": challenger.shards_hash,
                "manifest": challenger.manifest_hash,
                "split": gate_run.SPLIT,
                "view": challenger.view,
                "num_images": len(images.keys),
                "keys_sha256": images.keys_sha256,
            },
        }
        is_served_alike = folder is not None and champions.read_serving(folder) == serving
        decided = precedent.decided(lines, line, limits, is_served_alike=is_served_alike)
        if decided is not None and not precedent.failed_latency_alone(decided):
            return decided
        verdict = gate_run.judge(
            challenger,
            images,
            shards=challengers.SHARDS,
            champion=folder,
            num_judged_before=precedent.num_judged(lines, line),
            limits=limits,
        )
        if decided is not None and not verdict.promoted:
            print(f"judged again, since latency alone had refused it in line {decided['number']}: refused as before")
            return decided
        line["verdict"] = {**verdict._asdict(), "checks": [check._asdict() for check in verdict.checks]}
        if not verdict.promoted:
            line |= {"action": ledger.REFUSE, "champion_after": champion}
            ledger.append(layout.PROMOTIONS, line)
            print(describe(line))
            return line
        after = {**challenger.record, "bundle_hash": _pack(challenger, serving)}
        return _carry_out(line | {"action": ledger.PROMOTE, "champion_after": after})


def rollback(*, reason: str | None) -> dict:
    """Bring back the champion before the present one; again, the one before that.

    Args:
        reason: in a person's words, for the ledger.

    Returns:
        The ledger's line.

    Raises:
        ValueError: an experiment asks, there is no champion before, or it cannot be brought back.
    """
    with _alone("rollback"):
        model = load_section(layout.PARAMS, Promote, "promote").model
        completed = _complete_pending()
        if completed is not None and completed["action"] == ledger.ROLLBACK:
            return completed  # what was asked for again, not a second one
        lines = ledger.read(layout.PROMOTIONS)
        reigns = ledger.reigns(lines, model)
        if len(reigns) < 2:
            found = f"{reigns[0]['replica']} alone" if reigns else "no champion"
            raise PromotionError(
                f"{layout.PROMOTIONS}: {model}: found {found}, wanted a champion before the present one to go back to; "
                "a model that was once promoted is never left without a champion"
            )
        line = {"action": ledger.ROLLBACK, "champion_after": reigns[-2], "reason": reason}
        return _carry_out(_line(lines, model) | line)


def describe(line: dict) -> str:
    """Write a line of the ledger for a person."""
    where = f"{layout.PROMOTIONS}, line {line['number']}"
    if line["action"] == ledger.ROLLBACK:
        before, after = line["champion_before"], line["champion_after"]
        reason = f" ({line['reason']})" if line["reason"] else ""
        return f"{line['model']}: rolled back from {before['replica']} to {after['replica']}{reason}; {where}"
    before = line["champion_before"]
    checks = [gate.Check(**check) for check in line["verdict"]["checks"]]
    verdict = gate.Verdict(line["verdict"]["promoted"], checks, line["verdict"]["evidence"])
    compared = before if line["reason"] is None else None
    champion = compared and f"{compared['replica']}, the champion"
    names = {"challenger": line["challenger"]["replica"], "champion": champion}
    if "num_classes" in verdict.evidence:
        text = gate.describe(verdict, **names)
    else:  # too few images to be judged at all
        text = f"{names['challenger']} against {names['champion'] or 'nobody'}: refused\n  {checks[0].text}"
    if before is not compared:
        text += f"\nnot compared with {before['replica']}, the champion, whose files are lost: {line['reason']}"
    return f"{text}\n{line['model']}: {_outcome(line)}; {where}"


def _outcome(line: dict) -> str:
    if line["action"] == ledger.REFUSE:
        champion = line["champion_before"]
        return f"{champion['replica']} stayed the champion" if champion else "still without a champion"
    version = f"version {line['version']}" if line["version"] else "not yet registered"
    return f"{line['champion_after']['replica']} became the champion, {version}"


@contextmanager
def _alone(action: str) -> Iterator[None]:
    """Hold the promotion's lock, in a person's own checkout."""
    experiment, root = os.environ.get("DVC_EXP_NAME"), os.environ.get("DVC_ROOT")
    if experiment or (root and Path(root).resolve() != Path.cwd().resolve()):
        raise PromotionError(
            f"{action}: found a DVC experiment ({experiment or root}), wanted a checkout of its own: an experiment "
            "never changes the champion; `dvc exp apply` it, commit, then run this again"
        )
    with stage_lock(layout.state() / "promotion.lock"):
        yield


def _begin(model: str, *, without_champion: str | None) -> tuple[list[dict], bool]:
    """Complete what was interrupted, and make folder and registry follow the ledger.

    Returns:
        The ledger's lines, and whether the champion is lost.
    """
    _complete_pending()
    lines = ledger.read(layout.PROMOTIONS)
    champion, is_lost = ledger.champion(lines, model), False
    if champion is None:
        _withdraw(model)
    else:
        try:
            _follow(model, champion, lines, say=True)
        except champions.MissingError as error:
            is_lost = not _make_again(model, champion, lines)
            if is_lost and without_champion is None:
                raise champions.MissingError(f"{error}\n{WAY_OUT}") from None
    if without_champion is not None and not is_lost:
        found = f"{champion['replica']}, the champion, whole" if champion else "no champion in the ledger"
        raise PromotionError(
            f"--without-champion: {layout.champion(model)}: found {found}, wanted one whose files are lost; run "
            "`rootstock promote`"
        )
    if is_lost:
        print(f"WARNING: {champion['replica']}, the champion, is lost; judging against nobody", file=sys.stderr)
    return lines, is_lost


def _make_again(model: str, champion: dict, lines: list[dict]) -> bool:
    """Put a lost champion back where the challenger is the same model, byte for byte; return whether it was."""
    challenger = challengers.find()
    packed = None
    if challenger.record["dvc_hash"] == champion["dvc_hash"]:
        packed = _pack(challenger, gate_run.serving_of(challenger, challengers.SHARDS))
    if packed == champion["bundle_hash"]:
        print(f"{champion['replica']}, the champion, was lost; what was reproduced here is the same to the byte")
        _follow(model, champion, lines, say=True)
    champions.forget_packed()
    return packed == champion["bundle_hash"]


def _pack(challenger: challengers.Challenger, serving: Serving) -> str:
    return champions.pack(
        model=challenger.model, model_hash=challenger.record["dvc_hash"], shards=challengers.SHARDS, serving=serving
    )


def _line(lines: list[dict], model: str) -> dict:
    """Return a line's beginning: what it has whatever is decided."""
    return {
        "number": len(lines) + 1,
        "time": ledger.now(),
        "model": model,
        "champion_before": ledger.champion(lines, model),
        "challenger": None,
        "data": None,
        "verdict": None,
        "reason": None,
        "version": None,
    }


def _pending() -> Path:
    return layout.state() / "promotion" / "pending.json"


def _carry_out(line: dict) -> dict:
    write_json(_pending(), line)  # from here on it is decided
    return _complete(line, ledger.read(layout.PROMOTIONS))


def _complete_pending() -> dict | None:
    """Go on with a change of champion that was interrupted; return its line."""
    if not _pending().is_file():
        return None
    line, lines = read_json(_pending()), ledger.read(layout.PROMOTIONS)
    follows = line["number"] == len(lines) + 1 and line["champion_before"] == ledger.champion(lines, line["model"])
    if follows:
        print(f"line {line['number']} ({line['action']} {line['champion_after']['replica']}) was interrupted; going on")
        return _complete(line, lines)
    if {**line, "version": None} not in ({**one, "version": None} for one in lines):
        print(f"{_pending()}: dropped: {layout.PROMOTIONS} has changed since it was decided")
    _forget()
    return None


def _complete(line: dict, lines: list[dict]) -> dict:
    """Carry out a decided change of champion; each step finds out for itself whether it was done before."""
    try:
        version = _follow(line["model"], line["champion_after"], [*lines, line], say=False)
    except champions.MissingError:
        _forget()  # else every later promotion and rollback would stop at this one
        if line["champion_before"] is not None:
            with suppress(champions.ChampionError):
                champions.place(line["model"], line["champion_before"]["bundle_hash"])
        raise
    line = line | {"version": version}
    ledger.append(layout.PROMOTIONS, line)
    _forget()
    print(describe(line))
    print(f"to share it: commit {layout.PROMOTIONS} and {layout.champion(line['model'])}.dvc, then `dvc push`")
    return line


def _forget() -> None:
    _pending().unlink()
    champions.forget_packed()


def _follow(model: str, champion: dict, lines: list[dict], *, say: bool) -> str | None:
    """Make folder, DVC and registry hold a champion; return its version, None where the registry is out of reach."""
    folder = layout.champion(model)
    champions.place(model, champion["bundle_hash"])
    serving = champions.read_serving(folder).model_dump()
    try:
        mirrored = Registry(layout.project()).mirror(
            model, champion, folder=folder, serving=serving, line=precedent.promoting(lines, model, champion)
        )
    except StoreError as error:
        _out_of_reach(error)
        return None
    if say and mirrored.is_new:
        print(f"registry: {model} had no version of its champion; registered as version {mirrored.version}")
    if say and mirrored.alias_before not in (None, mirrored.version):
        print(
            f"registry: {model}@{ALIAS} pointed to version {mirrored.alias_before}, which the ledger does not say; "
            f"set back to version {mirrored.version}"
        )
    return mirrored.version


def _withdraw(model: str) -> None:
    try:
        version = Registry(layout.project()).withdraw(model)
    except StoreError as error:
        _out_of_reach(error)
        return
    if version is not None:
        print(f"registry: {model}@{ALIAS} pointed to version {version}, but the ledger has no champion; taken away")


def _out_of_reach(error: StoreError) -> None:
    print(
        f"WARNING: the model registry is out of reach ({error}); the ledger is right all the same, and the next "
        "`rootstock promote` brings the registry in line",
        file=sys.stderr,
    )
