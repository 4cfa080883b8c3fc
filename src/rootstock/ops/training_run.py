"""One training from start to bundle: lock, MLflow run, continuation, model and history."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch

import rootstock
from rootstock import distributed, layout
from rootstock.config.section import Section
from rootstock.config.training import Training
from rootstock.data.augment import TrainingViews, colour_pca_rows
from rootstock.data.parallel import num_workers
from rootstock.data.shard_set import ShardSet
from rootstock.models import bundle
from rootstock.models.classifier import Classifier
from rootstock.ops import fingerprint, hardware, runs, tracking
from rootstock.ops.locks import stage_lock
from rootstock.ops.preprocessing import statistics
from rootstock.schema import history
from rootstock.training.loop import Data, Loop

# what decides a training's bytes: their code, without docstrings, is part of the state's name
RESULT_BEARING = (
    "training",
    "models",
    "data/order.py",
    "data/decode.py",
    "data/augment.py",
    "data/loader.py",
    "rng.py",
)
CHECKPOINT_SECONDS = 30.0  # between checkpoints; a kill costs at most this much work


class Job(NamedTuple):
    """What is trained, and where its results go."""

    stage: str
    names: tuple[str | int, ...]  # of the replica
    params: Section  # the stage's section
    training: Training
    seed: int
    inputs: list[Path]  # files and folders whose hashes go into the run and the state's name
    dataset: str  # whose statistics the colour shift is drawn from
    shards: ShardSet
    splits: list[str]  # trained on; with val among them its gate images stay out
    image_size: int
    resize_size: int
    out: Path  # of the model


def train(job: Job, *, make: Callable[[], Classifier], set_train_mode: Callable[[Classifier], None]) -> None:
    """Train, or continue a training that was interrupted, and write model, history and run file.

    Args:
        make: the classifier before its first step.
        set_train_mode: puts it into training mode.

    Raises:
        LockedError: another process trains the same.
        DivergedError: the loss is no longer a number.
    """
    world = distributed.join()
    _be_deterministic()
    name = "-".join([job.stage, *map(str, job.names)])
    _warn_of_idle_ranks(job, world)
    # one rank reads the bytes, the others are told
    inputs = world.tell({str(path): fingerprint.dvc_hash(path) for path in job.inputs} if world.is_first else None)
    identity = {**job.params.model_dump(), "seed": job.seed}
    state = layout.state() / "training" / f"{name}-{fingerprint.state_name(identity, inputs, _code())}"
    try:
        with stage_lock(state.with_suffix(".lock")) if world.is_first else nullcontext():
            world.meet()  # no rank reads the state while the lock's holder before us still writes it
            _train_locked(job, world, state, inputs, identity, make, set_train_mode)
    finally:
        distributed.leave()


def _train_locked(
    job: Job,
    world: distributed.World,
    state: Path,
    inputs: dict[str, str],
    identity: dict,
    make: Callable[[], Classifier],
    set_train_mode: Callable[[Classifier], None],
) -> None:
    started = time.time()
    machine = {"world_size": world.size, "device": world.device.type, **hardware.describe()}
    environment = fingerprint.environment(folder=Path(), lock=layout.LOCK)
    tracked = nullcontext()
    if world.is_first:
        tracked = tracking.start(
            job.stage,
            names=job.names,
            params=identity,
            inputs=inputs,
            facts={"hardware": machine, "environment": environment},
            tags={"collection": job.shards.facts["collection"], "splits": "+".join(job.splits)},
            state=state,
            store=layout.project(),
        )
    with tracked as run:
        loop = Loop(
            make(),
            training=job.training,
            data=_data(job),
            views=_views(job),
            seed=job.seed,
            world=world,
            state=state / "checkpoints",
            checkpoint_seconds=_checkpoint_seconds(),
            set_train_mode=set_train_mode,
            send=run.log if run else lambda points: None,
        )
        outcome = loop.run()
        if not world.is_first:
            return
        _write_model(job, loop.classifier)
        history_path = layout.history(job.stage, *job.names)
        history.write(history_path, outcome.history)
        run.artifact(history_path)
        run.artifact(job.out / bundle.MODEL)
        runs.write(
            layout.run(job.stage, *job.names),
            stage=job.stage,
            names=job.names,
            run_id=run.id,
            started=started,
            finished=time.time(),
            wall_seconds=outcome.wall_seconds,
            seconds=outcome.seconds,
            images_per_second=outcome.num_images / outcome.wall_seconds,
            energy_joules=run.energy_joules,
            attempts=outcome.num_attempts,
            hardware=machine,
            environment=environment,
        )
    shutil.rmtree(state)  # everything is in the outputs now


def _data(job: Job) -> Data:
    train, val = job.shards.positions(["train"], gate=None), job.shards.positions(["val"], gate=None)
    if "val" in job.splits:
        train = job.shards.positions(["train", "val"], gate=False)
        val = job.shards.positions(["val"], gate=True)
    for what, positions in (("train on", train), ("validate on", val)):
        if len(positions) == 0:
            raise ValueError(f"{job.stage}: no images to {what}; see manifest.*.val_fraction and gate_fraction")
    return Data(
        samples=job.shards,
        train=train,
        val=val,
        image_size=job.image_size,
        resize_size=job.resize_size,
        num_threads=max(1, num_workers() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
    )


def _views(job: Job) -> TrainingViews:
    augment = job.training.augment
    measured = statistics(job.dataset, job.shards)
    rows = colour_pca_rows(
        eigenvalues=measured.eigenvalues, eigenvectors=measured.eigenvectors, std=augment.colour_pca_std
    )
    return TrainingViews(
        image_size=job.image_size,
        scale=augment.scale,
        ratio=augment.ratio,
        flip=augment.flip,
        antialias=augment.antialias,
        colour_pca=rows,
        seed=job.seed,
    )


def _write_model(job: Job, classifier: Classifier) -> None:
    facts = bundle.describe(
        classifier,
        class_names=job.shards.class_names,
        image_size=job.image_size,
        resize_size=job.resize_size,
        trained_on={
            "collection": job.shards.facts["collection"],
            "splits": job.splits,
            "num_images": len(_data(job).train),
        },
    )
    bundle.save(job.out, classifier, facts)


def _checkpoint_seconds() -> float:
    text = os.environ.get("ROOTSTOCK_CHECKPOINT_SECONDS") or str(CHECKPOINT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"ROOTSTOCK_CHECKPOINT_SECONDS: found {text!r}, wanted seconds, 0 or more")
    return seconds


def _warn_of_idle_ranks(job: Job, world: distributed.World) -> None:
    num_microbatches = job.training.batch_size // job.training.microbatch_size
    if world.is_first and world.size > num_microbatches:
        print(
            f"warning: {world.size} processes share {num_microbatches} microbatches a step, so "
            f"{world.size - num_microbatches} of them idle; {job.stage}.training.microbatch_size "
            f"{job.training.batch_size // world.size} would occupy all (and changes what is computed)",
            file=sys.stderr,
        )


def _code() -> str:
    package = Path(rootstock.__file__).parent
    found = [package / name for name in RESULT_BEARING]
    return fingerprint.code_hash(
        [path for item in found for path in ([item] if item.is_file() else item.rglob("*.py"))]
    )


def _be_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may choose other sums from run to run
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that writes every tensor twice
    torch.backends.cudnn.benchmark = False
