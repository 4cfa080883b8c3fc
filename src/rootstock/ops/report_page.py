"""Gather the pipeline's files for the report's page."""

import dataclasses
from pathlib import Path

import numpy as np

from rootstock import layout, rng
from rootstock.config.pretrain import Pretrain
from rootstock.config.replicas import Replicas
from rootstock.config.report import Report
from rootstock.config.training import Augment
from rootstock.data.augment import TrainingViews, colour_pca_rows
from rootstock.data.decode import resize_short
from rootstock.data.shard_set import ShardSet
from rootstock.evaluation import mistakes, predictions, report
from rootstock.ops import runs
from rootstock.schema import history, metrics, selection
from rootstock.schema import stats as stats_schema
from rootstock.schema.contract import read_facts, read_table
from rootstock.schema.duplicates import DUPLICATES
from rootstock.schema.manifest import REJECTS

COMMANDS = [
    "make repro    # run again what has changed",
    "make ui    # every run in MLflow, on this machine",
    "make repro DATA=mine    # your own images: three lines in conf/data/mine.yaml, see README",
    ".venv/bin/dvc metrics diff    # this working tree against the last commit",
]
NUM_VIEWS = 5  # random views shown beside each original
SHOWN_SIDE = 96  # pixels of a picture in a gallery, at least


def build(*, config: Report, replicas: Replicas, pretrain: Pretrain, augment: Augment) -> str:
    """Return the page's HTML.

    Args:
        augment: of the fine-tuning whose views of the target are shown.
    """
    chosen = selection.read(layout.SELECTION)
    names = [(strategy, seed) for strategy in replicas.strategies for seed in replicas.seeds]
    frame, facts = predictions.read(layout.predictions(**chosen["selected"]))
    statistics = {d: stats_schema.read(layout.stats(d), layout.stats_arrays(d)) for d in layout.DATASETS}
    shards = {d: ShardSet(layout.shards(d), verify="always") for d in layout.DATASETS}
    augments = {layout.SOURCE: pretrain.training.augment, layout.TARGET: augment}
    judged = frame[(frame["split"] == "test") & (frame["view"] == chosen["view"])]
    errors = mistakes.worst_errors(judged, num_errors=config.num_errors)["key"].tolist()
    return report.build(
        target_name=shards[layout.TARGET].facts["collection"],
        selection=chosen,
        metrics={name: metrics.read(layout.metrics(*name)) for name in names},
        predictions_frame=frame,
        histories=_histories(names),
        stats={d: dataclasses.asdict(value) for d, value in statistics.items()},
        mean_images={d: np.round(255 * value.mean_image).astype(np.uint8) for d, value in statistics.items()},
        galleries=[
            _gallery(d, shards[d], statistics[d], augments[d], image_size=pretrain.image_size, count=config.num_samples)
            for d in layout.DATASETS
        ],
        error_images=_images(shards[layout.TARGET], errors),
        duplicates={d: _duplicates(d, shards[d], config.num_duplicates) for d in layout.DATASETS},
        rejects={d: read_table(layout.rejects(d), REJECTS) for d in layout.DATASETS},
        runs=_runs(names),
        class_names=facts["class_names"],
        commands=COMMANDS,
        num_errors=config.num_errors,
        num_duplicates=config.num_duplicates,
        num_rejects=config.num_rejects,
    )


def _histories(names: list[tuple[str, int]]) -> dict:
    files = {"pretrain": layout.history("pretrain")}
    files |= {f"finetune-{layout.replica(*name)}": layout.history("finetune", *name) for name in names}
    return {name: history.read(path) for name, path in files.items()}


def _runs(names: list[tuple[str, int]]) -> dict[str, dict]:
    paths: list[Path] = [layout.run("pretrain")]
    paths += [layout.run(stage, *name) for stage in ("finetune", "evaluate") for name in names]
    return {path.stem: runs.read(path) for path in paths}


def _gallery(
    dataset: str,
    shards: ShardSet,
    statistics: stats_schema.Statistics,
    augment: Augment,
    *,
    image_size: int,
    count: int,
) -> dict:
    """One row an image: the image itself, then random views as training sees them, colour shift included."""
    train = shards.positions(["train"], gate=None)
    chosen = rng.stream("report", dataset).permutation(len(train))[:count]
    rows = colour_pca_rows(
        eigenvalues=statistics.eigenvalues, eigenvectors=statistics.eigenvectors, std=augment.colour_pca_std
    )
    views = TrainingViews(
        image_size=image_size,
        scale=augment.scale,
        ratio=augment.ratio,
        flip=augment.flip,
        antialias=augment.antialias,
        colour_pca=rows,
        seed=0,
    )
    pictures, labels = [], []
    for position in train[chosen].tolist():
        image = shards.decode(shards.read(position))
        key = shards.keys[position]
        seen = [views.view(image, epoch=epoch, key=key) for epoch in range(NUM_VIEWS)]
        shifted = [np.clip(view + 255 * shift, 0, 255).round().astype(np.uint8) for view, shift in seen]
        pictures.append([resize_short(picture, short_side=SHOWN_SIDE) for picture in [image, *shifted]])
        labels.append(shards.class_names[int(shards.labels[position])])
    return {
        "title": f"Samples of the {dataset}",
        "caption": f"{len(pictures)} of {len(train)} training images, and {NUM_VIEWS} random views of each at "
        f"{image_size} px, as training sees them",
        "rows": pictures,
        "labels": labels,
    }


def _duplicates(dataset: str, shards: ShardSet, num_pairs: int) -> dict:
    """The table, and the pictures of its first pairs; of a dropped image there is none."""
    path = layout.duplicates(dataset)
    rows = read_table(path, DUPLICATES)
    keys = set(rows.head(num_pairs)[["key", "other_key"]].to_numpy().ravel()) & set(shards.keys)
    images = _images(shards, sorted(keys))
    return {"facts": read_facts(path), "rows": rows, "images": images, "class_names": shards.class_names}


def _images(shards: ShardSet, keys: list[str]) -> dict[str, np.ndarray]:
    position = {key: number for number, key in enumerate(shards.keys)}
    return {
        key: resize_short(shards.decode(shards.read(position[key])), short_side=SHOWN_SIDE) for key in keys
    }  # fmt: skip
