"""What a reproduction that differs shows to say why: files, numbers, weights, machines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock import layout
from rootstock.models.bundle import WEIGHTS
from rootstock.ops import configuration, dvc_lock
from rootstock.ops.dvc_lock import Record
from rootstock.ops.fingerprint import dvc_hash
from rootstock.ops.lineage import contents
from rootstock.ops.reproduction.outcome import ALWAYS_DIFFERS, Outcome

NUMBERS_SHOWN = 6
DIGITS = 12
# what may change the last bits of a result, in reports/runs
MACHINE = {
    "hardware": ("device", "cpu", "cpu_capability", "instruction_sets", "num_threads", "gpus"),
    "environment": ("python", "torch", "cuda", "platform", "lock_sha256"),
}


def gather(outcome: Outcome, *, chain: Sequence[Record], folder: Path, revision: str) -> list[str]:
    """Compose the lines below a verdict that is not `identical`.

    Args:
        chain: recorded.
        folder: the worktree with the rebuilt outputs.
        revision: whose files were recorded.
    """
    first = [difference for difference in outcome.differences if difference.stage == outcome.first]
    others = list(dict.fromkeys(one.stage for one in outcome.differences if one.stage != outcome.first))
    lines = []
    for one in first:
        found = one.found[:DIGITS] if one.found else "nothing"
        lines.append(f"{one.path}: found {found}, recorded {one.recorded[:DIGITS]}")
        lines += [f"  {line}" for line in _inside(one.path, one.recorded, folder=folder)]
    if others:
        lines.append(f"after it differ {', '.join(others)}")
    for one in outcome.differences:
        if Path(one.path).name == "metrics.json":
            lines += _numbers(one.path, folder=folder, revision=revision)
    return lines + machines(chain, folder=folder, revision=revision)


def _inside(path: str, recorded: str, *, folder: Path) -> list[str]:
    """The files of a folder that differ; of a model, by how much."""
    if not (folder / path).is_dir():
        return []
    listed = contents.listing(recorded, project=layout.project())
    lines = contents.differing(folder / path, listed) if listed is not None else []
    if (folder / path / WEIGHTS).is_file():
        before = _recorded_weights(path, recorded, listed)
        after = folder / path / WEIGHTS
        lines.append(weights(before, after) if before else "the recorded weights are not here to be compared")
    return lines


def _recorded_weights(path: str, recorded: str, listed: dict[str, str] | None) -> Path | None:
    """The recorded weights in the project's folder, or in its cache, where they are whole."""
    here = layout.project() / path
    if here.is_dir() and dvc_hash(here) == recorded:
        return here / WEIGHTS
    md5 = (listed or {}).get(WEIGHTS)
    cached = layout.project() / contents.CACHE / md5[:2] / md5[2:] if md5 else None
    return cached if cached is not None and cached.is_file() and dvc_hash(cached) == md5 else None


def weights(before: Path, after: Path) -> str:
    """Say in words how far two files of weights are apart: share of equal tensors, largest difference."""
    from safetensors.torch import load_file

    a, b = load_file(before), load_file(after)
    if {name: value.shape for name, value in a.items()} != {name: value.shape for name, value in b.items()}:
        return "weights: other tensors or shapes"
    num_equal = sum(bool((a[name] == b[name]).all()) for name in a)
    distances = {name: (a[name].double() - b[name].double()).abs().max().item() for name in a if a[name].numel()}
    farthest = max(distances, key=lambda name: distances[name])
    return f"weights: {num_equal} of {len(a)} tensors equal, largest difference {distances[farthest]:.3g} in {farthest}"


def _numbers(path: str, *, folder: Path, revision: str) -> list[str]:
    recorded = dvc_lock.content(revision, path)
    if recorded is None or not (folder / path).is_file():
        return [f"{path}: its recorded numbers are not in git"]
    changes = configuration.differences(json.loads(recorded), json.loads((folder / path).read_text()))
    shown = [change for change in changes if change.partition(":")[0].endswith((".value", "log_loss"))] or changes
    more = [f"  … {len(changes)} numbers in all"] if len(changes) > NUMBERS_SHOWN else []
    return [f"{path}: recorded → found", *(f"  {change}" for change in shown[:NUMBERS_SHOWN]), *more]


def machines(chain: Sequence[Record], *, folder: Path, revision: str) -> list[str]:
    """Say in which facts the machines and environments differ that reports/runs recorded, each once."""
    lines: dict[str, None] = {}
    for record in chain:
        for path in (path for path in record.outs if Path(path).parent == ALWAYS_DIFFERS):
            before = dvc_lock.content(revision, path)
            if before is not None and (folder / path).is_file():
                after = json.loads((folder / path).read_text())
                lines |= dict.fromkeys(_facts(json.loads(before), after))
    return [*lines] or ["machine, threads and packages are as recorded in reports/runs"]


def _facts(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        f"{part}.{name}: recorded {before[part].get(name)}, here {after[part].get(name)}"
        for part, names in MACHINE.items()
        for name in names
        if before[part].get(name) != after[part].get(name)
    ]
