"""What a retraining's commit and pull request say: data, metrics and decision, before and after."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from rootstock import layout
from rootstock.evaluation.metrics import spread
from rootstock.evaluation.verdict import VIEW_NAMES, percent
from rootstock.ops import dvc_lock
from rootstock.ops.lineage.contents import CACHE
from rootstock.ops.promotion import promote
from rootstock.ops.retraining import branch as branches
from rootstock.schema import metrics as metrics_schema
from rootstock.schema import promotion as ledger
from rootstock.schema import selection as selection_schema
from rootstock.schema.contract import read_table
from rootstock.schema.manifest import MANIFEST, REJECTS
from rootstock.schema.names import SPLITS

ABSENT = "–"
JUDGED = ("val", "test")


def title(line: dict, *, is_new: bool) -> str:
    """Write the commit's first line from the ledger's line: the decision, and accuracies on the same images.

    Args:
        is_new: whether HEAD's ledger lacks the line; else the retraining decided nothing, and nothing may sound so.
    """
    if not is_new:
        decided = f"line {line['number']} of {layout.PROMOTIONS} had decided on it"
        return f"[retrain] {line['challenger']['replica']} again: {decided}"
    verb = "Promote" if line["action"] == ledger.PROMOTE else "Refuse"
    judged = line["verdict"]["evidence"]
    models = [judged.get(key) for key in ("champion", "challenger")]
    figures = " → ".join(percent(model["top1"]) for model in models if model)
    shown = f"top-1 accuracy {figures} %, n = {line['data']['num_images']}" if figures else "too few images to judge"
    return f"[retrain] {verb} {line['challenger']['replica']}: {shown} on {line['data']['split']}"


def is_new(line: dict) -> bool:
    """Whether a ledger's line is not yet in HEAD's ledger."""
    committed = dvc_lock.content("HEAD", layout.PROMOTIONS) or b""
    return line not in [json.loads(one) for one in committed.splitlines()]


def no_decision(stages: list[str]) -> tuple[str, str]:
    """Return title and text where stages ran again and made what HEAD has: only dvc.lock is new.

    Args:
        stages: those that ran.
    """
    listed = "".join(f"- `{name}`\n" for name in stages)
    return (
        f"[retrain] No result changed, nothing decided: {layout.DVC_LOCK} alone",
        "Something that these stages depend on has changed, but what they made is as HEAD has it, byte for byte:\n\n"
        f"{listed}\n"
        f"So nothing was judged, and the champion stays. `{layout.DVC_LOCK}` now says what the results were made from: "
        "once it is merged, a retraining has no reason to run these stages again.",
    )


def text(line: dict, *, is_new: bool, branch: str, others: list[str]) -> str:
    """Compose the pull request's text, in Markdown.

    Args:
        line: the ledger's.
        is_new: whether HEAD's ledger lacks the line.
        branch: the retraining's own.
        others: retrainings that the remote has besides, not merged.
    """
    parts = [
        "## Decision",
        f"```\n{promote.describe(line)}\n```" if is_new else _decided_before(line),
        f"## Metrics\n\n{metrics()}",
        f"## Data\n\n{data()}",
        f"## Report\n\n{_report(branch)}",
    ]
    if others:
        listed = ", ".join(f"`{other}`" for other in others)
        parts.append(
            f"Other retrainings on `{branches.REMOTE}` that are not merged: {listed}. "
            "Merge one only: each adds a line to the ledger."
        )
    return "\n\n".join(parts)


def _decided_before(line: dict) -> str:
    # an old line in full would name the champion of that day as today's
    champion = ledger.champion(ledger.read(layout.PROMOTIONS), line["model"])
    today = f"`{champion['replica']}` is the champion" if champion else "there is no champion"
    decided = f"{line['action']} `{line['challenger']['replica']}`"
    return f"None: line {line['number']} of `{layout.PROMOTIONS}` ({decided}) had decided on it. Today {today}."


def data() -> str:
    """Write how many images each collection had at HEAD and has now, by split, and how many were refused."""
    records = _at_head()
    rows = ["| collection | images | before | after |", "|---|---|---|---|"]
    for dataset in layout.DATASETS:
        counts = [_counts(path, dataset) for path in (_cached(records), Path)]
        for name in (*SPLITS, "refused"):
            before, after = (str(count[name]) if count else ABSENT for count in counts)
            rows.append(f"| {dataset} | {name} | {before} | {after} |")
    return "\n".join(rows)


def metrics() -> str:
    """Write each strategy's mean per-class accuracy at HEAD and now, on val and test, over seeds."""
    view = selection_schema.read(layout.SELECTION)["view"]
    before, after = _before(view), _after(view)
    rows = ["| strategy | split | before | after |", "|---|---|---|---|"]
    for strategy in sorted({name for name, _ in before} | {name for name, _ in after}):
        for split in JUDGED:
            cells = [_cell(values.get((strategy, split))) for values in (before, after)]
            rows.append(f"| {strategy} | {split} | {cells[0]} | {cells[1]} |")
    note = (
        f"Mean per-class accuracy in per cent, {VIEW_NAMES[view]}, mean ± standard deviation over seeds; n: images of "
        "the split, which may be others before and after. The decision above compares both models on the same "
        "images; test decides nothing."
    )
    return "\n".join([*rows, "", note])


def propose(branch: str) -> str:
    """Open the pull request of a pushed branch where GitHub's command line can; return what was done, or how to do it.

    A pull request of the same commit, open or closed, is left as it is. One of another commit is not this one's: a
    branch's name comes back where it was merged and deleted.
    """
    if not shutil.which("gh") or not {"GH_TOKEN", "GITHUB_TOKEN"} & os.environ.keys():
        return f"`gh` with a token was not found, so no pull request: open one for {branch}, its commit has the text"
    known = json.loads(_gh("pr", "list", "--head", branch, "--state", "all", "--json", "url,headRefOid"))
    made = branches.pushed(branch)
    for request in known:
        if request["headRefOid"] == made:
            return f"pull request {request['url']}"
    name, body = branches.message(branch)
    return f"pull request {_gh('pr', 'create', '--head', branch, '--title', name, '--body', body)}"


def _gh(*arguments: str) -> str:
    done = subprocess.run(["gh", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"gh {' '.join(arguments[:2])}: {done.stderr.strip()}; the branch is pushed, run this again")
    return done.stdout.strip()


def _report(branch: str) -> str:
    keys = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    by_hand = f"`git switch {branch} && dvc pull && dvc repro` makes `{layout.REPORT}` and trains nothing."
    if not all(os.environ.get(key) for key in keys):
        return by_hand
    server, repository, number = (os.environ[key] for key in keys)
    return f"`{layout.REPORT}` is an artifact of [this run]({server}/{repository}/actions/runs/{number}). {by_hand}"


def _at_head() -> dict[str, dvc_lock.Record]:
    return dvc_lock.at("HEAD") if dvc_lock.content("HEAD", layout.DVC_LOCK) is not None else {}


def _cached(records: dict[str, dvc_lock.Record]):
    """Return what finds a file of HEAD in DVC's cache, by its path."""
    outs = {path: md5 for record in records.values() for path, md5 in record.outs.items()}

    def find(path: Path) -> Path:
        md5 = outs.get(str(path), "none")
        return CACHE / md5[:2] / md5[2:]

    return find


def _counts(find, dataset: str) -> dict[str, int] | None:
    accepted, refused = find(layout.manifest(dataset)), find(layout.rejects(dataset))
    if not accepted.is_file() or not refused.is_file():
        return None
    splits = read_table(accepted, MANIFEST, ["split"])["split"].value_counts()
    return {split: int(splits.get(split, 0)) for split in SPLITS} | {"refused": len(read_table(refused, REJECTS))}


def _before(view: str) -> dict[tuple[str, str], list[dict]]:
    paths = [path for record in _at_head().values() for path in record.outs if path.endswith("/metrics.json")]
    found = {Path(path).parent.name: dvc_lock.content("HEAD", path) for path in paths}
    return _by_strategy({name: json.loads(value) for name, value in found.items() if value is not None}, view)


def _after(view: str) -> dict[tuple[str, str], list[dict]]:
    rows = selection_schema.read(layout.SELECTION)["candidates"]
    names = [(row["strategy"], row["seed"]) for row in rows]
    return _by_strategy({layout.replica(*name): metrics_schema.read(layout.metrics(*name)) for name in names}, view)


def _by_strategy(replicas: dict[str, dict], view: str) -> dict[tuple[str, str], list[dict]]:
    gathered: dict[tuple[str, str], list[dict]] = {}
    for name, judged in sorted(replicas.items()):
        for split in JUDGED:
            if view in judged.get(split, {}):
                gathered.setdefault((name.rpartition("-")[0], split), []).append(judged[split][view])
    return gathered


def _cell(judged: list[dict] | None) -> str:
    if not judged:
        return ABSENT
    over = spread([one["mean_per_class"]["value"] for one in judged])
    sd = f" ± {percent(over.sd)}" if over.sd is not None else ""
    seeds = f"{over.num_values} seed{'s' if over.num_values > 1 else ''}"
    return f"{percent(over.mean)}{sd} ({seeds}, n = {judged[0]['num_images']})"
