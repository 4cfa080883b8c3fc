"""Promotions of the small project without their slow parts: a DVC that copies folders, challengers made by hand.

What stays real: the project's shards, models, dvc.lock and MLflow store.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rootstock import layout
from rootstock.evaluation import metrics, predictions
from rootstock.models import bundle
from rootstock.ops import fingerprint
from rootstock.ops.promotion import champion, gate_run, registered_package
from rootstock.schema import metrics as metrics_schema
from rootstock.schema import selection

CONFIDENT = 0.4  # the least probability of the best of three classes here
CACHE, REMOTE = Path(".rootstock/cache"), Path(".rootstock/remote")


def fake_dvc(*arguments: str) -> str | None:
    """`dvc add`, `checkout` and `pull` of one folder: what `champion._dvc` would have run."""
    command, path = arguments[0], Path(arguments[-1])
    if command == "add":
        found = fingerprint.dvc_hash(path)
        path.with_name(f"{path.name}.dvc").write_text(
            f"outs:\n- md5: {found}\n  size: 1\n  hash: md5\n  path: {path.name}\n"
        )
        shutil.copytree(path, CACHE / found, dirs_exist_ok=True)
        return None
    wanted = champion.parse_yaml(path.read_text(), where=str(path))["outs"][0]["md5"]
    source = (CACHE if command == "checkout" else REMOTE) / wanted
    if not source.is_dir():
        return f"{command} found nothing"
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    shutil.copytree(source, path.with_suffix(""))
    return None


def fake_save(path: Path, *, folder: Path, serving: dict) -> None:
    """In place of `registered_package.save`, which takes seconds."""
    path.mkdir()
    (path / "MLmodel").write_text(f"flavors: {{}}\nserving: {serving['view']}\n")


def simplify(monkeypatch) -> None:
    """Replace DVC, the packing for MLflow and the clock of predictions."""
    monkeypatch.setattr(champion, "_dvc", fake_dvc)
    monkeypatch.setattr(registered_package, "save", fake_save)
    monkeypatch.setattr(gate_run, "_latency_ms", lambda *args, **kwargs: 5.0)


def selected() -> tuple[str, int]:
    """The replica that stands for promotion."""
    found = selection.read(layout.SELECTION)["selected"]
    return found["strategy"], found["seed"]


def challenge(*, accuracy: float, seed: int, names: list[str] | None = None) -> str:
    """Make the selected replica another one, as if it had been trained and evaluated so; return its folder's hash.

    Args:
        accuracy: of its predictions on val and test, exactly to an image a class. Its weights say nothing: the first
            class, whatever they see.
        seed: makes the weights different.
        names: other names for its classes.
    """
    name = selected()
    model, table = layout.finetune(*name), layout.predictions(*name)
    folder = table.parent.parent
    before = [fingerprint.dvc_hash(path) for path in (model, table, folder)]
    _train(model, seed=seed, names=names)
    _evaluate(table, layout.metrics(*name), accuracy=accuracy)
    lock = layout.DVC_LOCK.read_text()
    for path, old in zip((model, table, folder), before, strict=True):
        lock = lock.replace(old, fingerprint.dvc_hash(path))
    layout.DVC_LOCK.write_text(lock)
    return fingerprint.dvc_hash(model)


def _train(model: Path, *, seed: int, names: list[str] | None) -> None:
    classifier, facts = bundle.load(model)
    if names is not None:
        facts["class_names"] = names
    with torch.no_grad():
        classifier.network.head.weight.zero_()
        classifier.network.head.bias.copy_(torch.tensor([1.0, 0.0, seed / 1000]))
    shutil.rmtree(model)  # its files may be DVC's own
    bundle.save(model, classifier, facts)


def _evaluate(table: Path, metrics_path: Path, *, accuracy: float) -> None:
    frame, facts = predictions.read(table)
    pieces = []
    for (split, view), rows in frame.groupby(["split", "view"]):
        labels = rows["label"].to_numpy()
        best = labels.copy()
        for label in np.unique(labels):
            places = np.flatnonzero(labels == label)
            wrong = places[round(accuracy * len(places)) :]
            best[wrong] = (label + 1) % len(facts["class_names"])
        confidence = max(accuracy, CONFIDENT)
        rest = (1 - confidence) / (len(facts["class_names"]) - 1)
        probabilities = np.full((len(rows), len(facts["class_names"])), rest, np.float32)
        probabilities[np.arange(len(rows)), best] = confidence
        pieces.append(
            predictions.table(
                split=split, view=view, keys=rows["key"].tolist(), labels=labels, probabilities_NK=probabilities
            )
        )
    for path in (table, metrics_path):
        path.unlink()
    predictions.write(table, pieces, facts=facts)
    metrics_schema.write(metrics_path, metrics.compute(predictions.read(table)[0]))


def killed(work: Callable[[], object], *, after: tuple[object, str]) -> None:
    """Run `work` in a forked process that is killed with SIGKILL when it has called a function once.

    Args:
        after: the function's module or class, and its name.
    """
    child = os.fork()
    if child == 0:
        owner, name = after
        original = getattr(owner, name)

        def fatal(*args, **kwargs):
            original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, fatal)
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it was to be killed after {after[1]} and ended with {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL
