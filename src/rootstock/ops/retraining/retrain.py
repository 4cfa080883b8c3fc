"""The scheduled loop: new images in, a judged model out as a branch to merge; nothing where nothing changed.

Every step finds out for itself whether it was done before, so whatever ends a retraining, the same command completes
it. Data are pushed before the branch that names them. HEAD stays; once the branch holds what was made, the files that
git tracks are as HEAD has them.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.promote import Promote
from rootstock.ops import dvc_lock, mend, recheck
from rootstock.ops.explanation import dvc_status
from rootstock.ops.fingerprint import MADE_BY_REPRO
from rootstock.ops.locks import stage_lock
from rootstock.ops.promotion import champion as champions
from rootstock.ops.promotion import promote
from rootstock.ops.retraining import branch as branches
from rootstock.ops.retraining import pull_request
from rootstock.schema import promotion as ledger

VARIABLE = "ROOTSTOCK_REMOTE"
# neither in git nor in DVC, so a fresh clone never has it: its absence alone is no reason to train
REPORT_STAGE = "report"
RUNS = layout.run("any").parent
# what says how results were made, not what they are
UNJUDGED = (str(layout.DVC_LOCK), str(layout.PARAMS), str(RUNS))
NUM_SHOWN = 5

Say = Callable[[str], None]


def retrain(*, dry: bool, say: Say) -> int:
    """Retrain where data, code or parameters changed; judge, push data and branch, and propose the result.

    Args:
        dry: only say what would be done; nothing is pulled, run or pushed.
        say: prints a line.

    Returns:
        The exit status: 0 also where nothing was to be done; that of DVC where it failed.

    Raises:
        ValueError: an experiment asks, the checkout has local changes, or a remote is missing or refuses.
    """
    _refuse_experiment()
    branches.check_ready()
    remote = _remote(add=not dry)
    if dry:
        return _foresee(remote, say=say)
    with stage_lock(layout.state() / "retrain.lock", timeout_s=0.0):
        for line in mend.mend():
            say(f"mended: {line}")
        _pull(remote, say=say)
        return _retrain(remote, say=say)


def _retrain(remote: str, *, say: Say) -> int:
    lock_was_committed = _lock_bytes() == dvc_lock.content("HEAD", layout.DVC_LOCK)
    status = _fetch(say=say)
    if status:
        return status
    stale = _stale()
    if not stale and not _new_records():
        say("nothing to do: every result belongs to the present data, code and parameters, and HEAD has them")
        return 0
    branch = branches.name()
    if branches.pushed(branch):
        if lock_was_committed and _lock_bytes() is not None:
            branches.restore([str(layout.DVC_LOCK)])
        elif made := branches.left(branch):
            branches.put_back(made)
        say(f"nothing to do: {branches.REMOTE} has {branch}, made from this very state; merge it, or keep it to refuse")
        say(pull_request.propose(branch))
        return 0
    say(f"to run: {_listed(stale)}" if stale else "to run: nothing; a retraining goes on that was not pushed")
    _need_champion()
    status = _dvc("repro")
    if status:
        say(f"dvc repro ended with status {status}; nothing was pushed, and the same command goes on from there")
        return status
    return _conclude(branch, remote, say=say)


def _conclude(branch: str, remote: str, *, say: Say) -> int:
    """Make a branch of what was reproduced, where it says anything that HEAD does not."""
    if _new_results():
        title, text = _judge(branch)
        return _publish(branch, remote, f"{title}\n\n{text}\n", paths=MADE_BY_REPRO, say=say)
    changed = _new_records()
    if changed:
        title, text = pull_request.no_decision(changed)
        return _publish(branch, remote, f"{title}\n\n{text}\n", paths=UNJUDGED, say=say)
    status = _push(remote, say=say)
    branches.restore([str(layout.DVC_LOCK), str(RUNS)])
    say("what was missing is made again, with the results that HEAD has: no branch")
    return status


def _need_champion() -> None:
    """Bring the ledger's champion here: without it nothing can be judged, and training takes hours.

    Raises:
        ValueError: it is nowhere to be had.
    """
    model = load_section(layout.PARAMS, Promote, "promote").model
    champion = ledger.champion(ledger.read(layout.PROMOTIONS), model)
    if champion is None:
        return
    try:
        champions.place(model, champion["bundle_hash"])
    except champions.MissingError as error:
        branches.restore([f"{layout.champion(model)}.dvc"])  # rewritten in the attempt; the next `git pull` would stop
        raise champions.MissingError(
            f"{error}\nnothing was trained; where nobody has it: `dvc repro`, then `rootstock promote`, which makes "
            "it again of an equal model or says how to judge without it; commit what that wrote, and `dvc push`"
        ) from None


def _judge(branch: str) -> tuple[str, str]:
    """Judge the challenger; return the commit's title and text."""
    line = promote.promote()
    is_new = pull_request.is_new(line)
    text = pull_request.text(line, is_new=is_new, branch=branch, others=branches.others(branch))
    return pull_request.title(line, is_new=is_new), text


def _publish(branch: str, remote: str, message: str, *, paths: Sequence[str], say: Say) -> int:
    """Commit, then push: data first, so that no revision names data that nobody has."""
    made = branches.commit(branch, message, paths=paths)
    say(f"committed {made[:12]} as {branch}: {message.splitlines()[0]}")
    status = _push(remote, say=say)
    if status:
        return status
    branches.push(branch)
    say(f"pushed {branch} to {branches.REMOTE}")
    branches.put_back(made)
    say(pull_request.propose(branch))
    return 0


def _foresee(remote: str | None, *, say: Say) -> int:
    say(f"would pull from DVC's remote {remote}")
    for dataset in layout.DATASETS:
        found = recheck.changed(dataset)
        say(f"{dataset}: {f'would fetch again: {_listed(found)}' if found else 'as fetch noted it'}")
        if found:
            say("would run what depends on it, judge, push data and a branch")
            return 0
    stale = _stale()
    if not stale and not _new_records():
        say("nothing to do")
        return 0
    branch = branches.name()
    if branches.pushed(branch):
        say(f"nothing to do: {branches.REMOTE} has {branch}")
        return 0
    say(f"would run {_listed(stale)}" if stale else "would run nothing")
    say(f"would judge the challenger, push data to {remote} and {branch} to {branches.REMOTE}")
    return 0


# ------------------------------------------------------------------------------------------------------------ the steps


def _refuse_experiment() -> None:
    name = os.environ.get("DVC_EXP_NAME") or os.environ.get("DVC_EXP_BASELINE_REV")
    if name:
        raise ValueError(f"found a DVC experiment ({name}), wanted a checkout of its own: an experiment never promotes")


def _remote(*, add: bool) -> str:
    """Return the name of DVC's default remote; add the environment's where the repository has none."""
    from dvc.repo import Repo

    with Repo() as repo:
        configured = repo.config["core"].get("remote")
    if configured:
        return configured
    url = os.environ.get(VARIABLE)
    if not url:
        raise ValueError(
            f"found no default DVC remote, wanted one to push to, or the branch would name data that nobody has: "
            f"`dvc remote add --default NAME URL`, or ${VARIABLE}"
        )
    if add and _dvc("remote", "add", "--quiet", "--local", "--default", "--force", "retrain", url):
        raise ValueError(f"${VARIABLE}: DVC refused {url!r}, see above; wanted a remote's URL")
    return "retrain"


def _pull(remote: str, *, say: Say) -> None:
    """Get what earlier reproductions made. What was never pushed is made again, so it is no error."""
    # in two steps: `dvc pull`, even with --allow-missing, gives nothing at all where the remote lacks one file
    fetched = _dvc("fetch", "--quiet", "--remote", remote) == 0
    laid_out = _dvc("checkout", "--quiet", "--allow-missing") == 0
    if fetched and laid_out:
        say(f"pull: all that HEAD records is here, from {remote}")
    elif fetched:
        say("pull: some outputs here are neither as recorded nor in DVC's cache, see above; their stages run again")
    else:
        say(f"pull: {remote} lacks some of the data, see above; their stages run again")


def _fetch(*, say: Say) -> int:
    for dataset in layout.DATASETS:
        found = recheck.changed(dataset)
        say(f"{dataset}: {_listed(found) if found else 'as fetch noted it'}")
        status = recheck.fetch_again(dataset) if found else 0
        if status:
            say(f"fetch@{dataset} ended with status {status}; nothing was changed")
            return status
    return 0


def _push(remote: str, *, say: Say) -> int:
    status = _dvc("push", "--quiet", "--remote", remote)
    say(f"pushed data to {remote}" if not status else f"dvc push ended with status {status}; no branch was pushed")
    return status


def _dvc(*arguments: str) -> int:
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], check=False).returncode


# ---------------------------------------------------------------------------------------------------- what is there now


def _stale() -> list[str]:
    return [name for name, stage in dvc_status.look(Path()).stages.items() if stage.is_stale and name != REPORT_STAGE]


def _new_results() -> bool:
    """Whether dvc.lock holds other results than HEAD's; times and machines, which always differ, do not count."""
    here, committed = _records()
    return _all_results(here) != _all_results(committed)


def _new_records() -> list[str]:
    """Return the stages that dvc.lock records otherwise than HEAD's: other results, or equal ones of other inputs."""
    here, committed = ({name: _facts(record) for name, record in records.items()} for records in _records())
    names = dict.fromkeys([*here, *committed])
    return [name for name in names if name != REPORT_STAGE and here.get(name) != committed.get(name)]


def _records() -> tuple[dict[str, dvc_lock.Record], dict[str, dvc_lock.Record]]:
    is_committed = dvc_lock.content("HEAD", layout.DVC_LOCK) is not None
    return dvc_lock.current(), dvc_lock.at("HEAD") if is_committed else {}


def _facts(record: dvc_lock.Record) -> tuple:
    return record.command, record.deps, record.params, _results(record)


def _results(record: dvc_lock.Record) -> dict[str, str]:
    left_out = (f"{RUNS}/", str(layout.REPORT))
    return {path: md5 for path, md5 in record.outs.items() if not path.startswith(left_out)}


def _all_results(records: dict[str, dvc_lock.Record]) -> dict[str, str]:
    return {path: md5 for record in records.values() for path, md5 in _results(record).items()}


def _lock_bytes() -> bytes | None:
    return layout.DVC_LOCK.read_bytes() if layout.DVC_LOCK.is_file() else None


def _listed(found: list[str]) -> str:
    more = f", and {len(found) - NUM_SHOWN} more" if len(found) > NUM_SHOWN else ""
    return ", ".join(found[:NUM_SHOWN]) + more
