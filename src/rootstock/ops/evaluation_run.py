"""One evaluation from model to metrics: predictions of every validation and test image, tracked by MLflow."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rootstock import distributed, layout
from rootstock.config.evaluate import Evaluate
from rootstock.data import loader
from rootstock.data.parallel import num_workers
from rootstock.data.shard_set import ShardSet
from rootstock.evaluation import inference, metrics, predictions
from rootstock.models import bundle
from rootstock.ops import fingerprint, hardware, runs, tracking
from rootstock.ops.locks import stage_lock
from rootstock.schema import metrics as metrics_schema

AHEAD = 2  # chunks of decoded images beyond the one in use


def evaluate(
    *, names: tuple[str, int], config: Evaluate, shards_folder: Path, model: Path, predictions_path: Path,
    metrics_path: Path,
) -> None:  # fmt: skip
    """Write the predictions table and the metrics computed from it.

    Where the model was trained on val as well, only val's gate images, which it has not seen, are predicted as `val`.
    """
    world = distributed.join()
    inputs = {str(path): fingerprint.dvc_hash(path) for path in (shards_folder, model)}
    name = "-".join(["evaluate", *map(str, names)])
    state = layout.state() / "evaluation" / f"{name}-{fingerprint.state_name(config.model_dump(), inputs, '')}"
    machine = {"device": world.device.type, **hardware.describe()}
    environment = fingerprint.environment(folder=Path(), lock=layout.LOCK)
    started = time.time()
    with (
        stage_lock(state.with_suffix(".lock")),
        tracking.start(
            "evaluate",
            names=names,
            params=config.model_dump(),
            inputs=inputs,
            facts={"hardware": machine, "environment": environment},
            tags={},
            state=state,
            store=layout.project(),
        ) as run,
    ):
        shards = ShardSet(shards_folder, verify="always")
        classifier, facts = bundle.load(model)
        positions = {
            "val": shards.positions(["val"], gate=True if "val" in facts["trained_on"]["splits"] else None),
            "test": shards.positions(["test"], gate=None),
        }
        classifier.to(world.device)
        tables = [
            table
            for split, members in positions.items()
            for table in _predict(split, members, shards, classifier, facts, config, world)
        ]
        predictions.write(
            predictions_path,
            tables,
            facts={
                "class_names": facts["class_names"],
                "collection": shards.facts["collection"],
                "trained_on": facts["trained_on"]["splits"],
            },
        )
        frame, _ = predictions.read(predictions_path)  # what is judged is what was written
        keys = {split: shards.keys[members].tolist() for split, members in positions.items()}
        predictions.assert_complete(frame, keys_by_split=keys, views=config.views)
        computed = metrics.compute(frame)
        metrics_schema.write(metrics_path, computed)
        now = time.time()
        run.log(list(_points(computed, int(now * 1000))))
        run.artifact(metrics_path)
        num_images = sum(map(len, positions.values()))
        runs.write(
            layout.run("evaluate", *names),
            stage="evaluate",
            names=names,
            run_id=run.id,
            started=started,
            finished=now,
            wall_seconds=now - started,
            seconds={},
            images_per_second=num_images / (now - started),
            energy_joules=run.energy_joules,
            attempts=run.attempts,
            hardware=machine,
            environment=environment,
        )
    shutil.rmtree(state)  # an evaluation that is forced again is a run of its own


def _predict(
    split: str,
    positions: np.ndarray,
    shards: ShardSet,
    classifier: bundle.Classifier,
    facts: dict,
    config: Evaluate,
    world: distributed.World,
) -> Iterator[pd.DataFrame]:
    chunks = [positions[start : start + config.batch_size] for start in range(0, len(positions), config.batch_size)]
    images = loader.resized_images(
        shards, chunks, resize_size=facts["resize_size"], num_threads=num_workers(), ahead=AHEAD
    )
    predicted = inference.predict(
        classifier,
        images,
        views=config.views,
        image_size=facts["image_size"],
        batch_size=config.batch_size,
        device=world.device,
        precision="fp32",
    )
    for chunk, probabilities in predicted:
        for view in config.views:
            yield predictions.table(
                split=split,
                view=view,
                keys=shards.keys[chunk].tolist(),
                labels=shards.labels[chunk],
                probabilities_NK=probabilities[view],
            )


def _points(computed: dict, timestamp_ms: int) -> Iterator[tracking.Point]:
    for split, views in computed.items():
        for view, values in views.items():
            for name, value in values.items():
                number = value["value"] if isinstance(value, dict) else value
                yield tracking.Point(f"{split}_{view}_{name}", float(number), 0, timestamp_ms)
