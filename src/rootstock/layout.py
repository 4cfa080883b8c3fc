"""Where files live: the only module that knows paths. A test compares it with `dvc.yaml`.

`DATASETS` are the two roles a collection plays: the source (the rootstock, large, for pretraining) and the target
(the graft, small, yours).
"""

import os
from pathlib import Path

SOURCE, TARGET = "source", "target"
DATASETS = (SOURCE, TARGET)

PARAMS = Path("params.yaml")
CONF = Path("conf")
LOCK = Path("requirements.lock")
DVC_LOCK = Path("dvc.lock")

PRETRAIN = Path("models/pretrain")
SELECTION = Path("reports/select/challenger.json")
REPORT = Path("reports/report.html")
PROMOTIONS = Path("reports/promotions.jsonl")  # the ledger: a line each decision, in git


def source(dataset: str) -> Path:
    """What `fetch` found: names, sizes and sums of a collection's archives."""
    return Path("data/raw") / dataset / "source.json"


def manifest(dataset: str) -> Path:
    """One row an accepted image."""
    return Path("data/manifest") / f"{dataset}.parquet"


def rejects(dataset: str) -> Path:
    """One row a rejected image, with its reason."""
    return Path("data/manifest") / f"{dataset}.rejects.parquet"


def duplicates(dataset: str) -> Path:
    """One row an image that is also in another split or under another label."""
    return Path("data/manifest") / f"{dataset}.duplicates.parquet"


def stats(dataset: str) -> Path:
    """Statistics as JSON; the arrays lie beside it (`stats_arrays`)."""
    return Path("data/stats") / f"{dataset}.json"


def stats_arrays(dataset: str) -> Path:
    """Mean image and histograms as .npz."""
    return stats(dataset).with_suffix(".npz")


def shards(dataset: str) -> Path:
    """The folder of WebDataset tars and `index.parquet`."""
    return Path("data/shards") / dataset


def training_inputs(dataset: str) -> list[Path]:
    """What a training reads of a collection."""
    return [shards(dataset), stats(dataset), stats_arrays(dataset)]


def replica(strategy: str, seed: int) -> str:
    """A fine-tuning replica's name."""
    return f"{strategy}-{seed}"


def finetune(strategy: str, seed: int) -> Path:
    """A fine-tuned model's folder."""
    return Path("models/finetune") / replica(strategy, seed)


def evaluate(strategy: str, seed: int) -> Path:
    """The folder of a replica's predictions and metrics."""
    return Path("reports/evaluate") / replica(strategy, seed)


def champion(model: str) -> Path:
    """The folder of a registered model's present champion; `<folder>.dvc` beside it, in git, is DVC's hold on it."""
    return Path("models/champions") / model


def predictions(strategy: str, seed: int) -> Path:
    """A replica's predictions table."""
    return evaluate(strategy, seed) / "predictions.parquet"


def predictions_of(name: str) -> Path:
    """A predictions table by a replica's name (`full-0`) or by its own path."""
    return Path(name) if name.endswith(".parquet") else Path("reports/evaluate") / name / "predictions.parquet"


def metrics(strategy: str, seed: int) -> Path:
    """A replica's metrics, computed from its predictions."""
    return evaluate(strategy, seed) / "metrics.json"


def history(stage: str, *names: str | int) -> Path:
    """A training's curve, one row an epoch."""
    return Path("reports/history") / f"{'-'.join([stage, *map(str, names)])}.csv"


def run(stage: str, *names: str | int) -> Path:
    """Run id, timings and hardware of one training or evaluation: what must not enter a result's hash."""
    return Path("reports/runs") / f"{'-'.join([stage, *map(str, names)])}.json"


def project() -> Path:
    """The person's own checkout: `$DVC_ROOT` in a queued experiment's copy, else the working directory."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def state() -> Path:
    """The folder of training states, locks and caches, outside DVC's outputs, shared by experiments."""
    return project() / ".rootstock"


def archives() -> list[Path]:
    """Folders searched for archives, in order: `$ROOTSTOCK_ARCHIVES` (several, `:`-separated), then our own."""
    given = [Path(part).expanduser() for part in os.environ.get("ROOTSTOCK_ARCHIVES", "").split(os.pathsep) if part]
    return [*given, project() / "data/archives"]


def own_archives(collection: str) -> Path:
    """The folder that we may write a collection's archives to: downloads, generated ones, inflated ones."""
    return project() / "data/archives" / collection
