"""Trainings of a second, for test_loop.py: imported by it, run under torchrun, or run and killed in forked children.

python toy_training.py kills FOLDER        chains of SIGKILL and continuation; prints one JSON line a chain
torchrun … toy_training.py ranks FOLDER    every training of `SHARED`; rank 0 leaves their final states
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rootstock import distributed, rng
from rootstock.config.model import ResNetArch
from rootstock.config.training import Training
from rootstock.data.augment import TrainingViews
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.training.loop import Data, Loop

NUM_CLASSES = 4
SIDE = 12  # pixels of the stored images
IMAGE_SIZE = 8


class Samples:
    """Images that are a function of their position; class c is bright in its own corner of colour space."""

    def __init__(self, num_images: int):
        self.labels = np.arange(num_images, dtype=np.int64) % NUM_CLASSES
        self.keys = [f"class/{position}" for position in range(num_images)]

    def read(self, position: int) -> bytes:
        return str(position).encode()

    def decode(self, data: bytes, **_: object) -> np.ndarray:
        position = int(data)
        noise = rng.stream("toy", position).integers(0, 120, (SIDE, SIDE, 3))
        colour = 100 * np.array([self.labels[position] & 1, self.labels[position] >> 1, 0.5])
        return (noise + colour).astype(np.uint8)


class DropoutNetwork(nn.Module):
    """Convolution, batch normalisation and dropout, the three things that ranks could compute differently."""

    HEAD = "head"

    def __init__(self, seed: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 2 * 2, NUM_CLASSES)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                draws = rng.stream("toy-init", seed, name).standard_normal(tuple(parameter.shape), dtype="float32")
                parameter.copy_(torch.from_numpy(draws) * 0.2 + (1.0 if parameter.ndim == 1 else 0.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(images).flatten(1)))


def classifier(network: str, *, seed: int) -> Classifier:
    normalise = Normalise("standardise", mean=torch.full((3, 1, 1), 0.4), std=torch.full((3, 1, 1), 0.3))
    if network == "dropout":
        return Classifier(normalise, DropoutNetwork(seed))
    arch = ResNetArch(name="resnet18", stem="small", width=8, zero_init_last_bn=False)
    return Classifier(normalise, build(arch, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES, seed=seed))


def training(
    *, epochs: int = 3, batch: int = 8, micro: int = 4, precision: str = "fp32", lr: float = 0.05,
    schedule: dict | None = None, scale: tuple[float, float] = (0.5, 1.0),
) -> Training:  # fmt: skip
    return Training.model_validate(
        {
            "epochs": epochs,
            "batch_size": batch,
            "microbatch_size": micro,
            "precision": precision,
            "label_smoothing": 0.0,
            "optim": {
                "lr": lr,
                "momentum": 0.9,
                "weight_decay": 1e-3,
                "decay_norm_and_bias": False,
                "schedule": schedule or {"kind": "plateau", "warmup_epochs": 0.5, "patience": 1, "factor": 0.5},
            },
            "augment": {
                "scale": list(scale),
                "ratio": [0.75, 1.3333],
                "flip": 0.5,
                "antialias": False,
                "colour_pca_std": 0.1,
            },
        }
    )


def loop(
    state: Path,
    *,
    network: str | Classifier = "dropout",
    num_train: int = 22,
    num_val: int = 9,
    seed: int = 0,
    num_threads: int = 2,
    checkpoint_seconds: float = 1e9,
    send: Callable[[list], None] = lambda points: None,
    world: distributed.World | None = None,
    set_train_mode: Callable[[Classifier], None] = Classifier.train,
    **options,
) -> Loop:
    """Prepare a training; its images are the first `num_train` positions, validated on the next `num_val`."""
    colours = np.array([[0.1, 0.1, 0.1], [0.05, 0.0, -0.05], [0.01, -0.02, 0.01]])
    settings = training(**options)
    return Loop(
        classifier(network, seed=seed) if isinstance(network, str) else network,
        training=settings,
        data=Data(
            Samples(num_train + num_val),
            np.arange(num_train),
            np.arange(num_train, num_train + num_val),
            IMAGE_SIZE,
            IMAGE_SIZE,
            num_threads,
        ),
        views=TrainingViews(
            image_size=IMAGE_SIZE, scale=tuple(settings.augment.scale), ratio=(0.75, 1.3333), flip=0.5,
            antialias=False, colour_pca=colours, seed=seed,
        ),
        seed=seed,
        world=world or distributed.World(0, 1, torch.device("cpu")),
        state=state,
        checkpoint_seconds=checkpoint_seconds,
        set_train_mode=set_train_mode,
        send=send,
    )  # fmt: skip


# the same for 1 and 2 ranks; the last batch of an epoch has fewer microbatches than there are ranks
SHARED = {
    "resnet": {"network": "resnet", "num_train": 17, "batch": 8, "micro": 4, "epochs": 1},
    "dropout": {"network": "dropout", "num_train": 22, "batch": 8, "micro": 2, "epochs": 2},
    "halves": {"network": "dropout", "num_train": 32, "batch": 16, "micro": 8, "epochs": 1},
    "one-microbatch": {"network": "dropout", "num_train": 8, "batch": 4, "micro": 4, "epochs": 1},
    "half-precision": {"network": "dropout", "num_train": 8, "batch": 4, "micro": 4, "epochs": 1, "precision": "fp16"},
}


def ranks(folder: Path) -> None:
    world = distributed.join()
    torch.set_num_threads(1)
    for name, options in SHARED.items():
        loop(folder / name, world=world, **options).run()
    # continuation: every rank reads the state that the first rank wrote
    loop(folder / "continued", world=world, **SHARED["dropout"] | {"epochs": 1}).run()
    world.meet()
    loop(folder / "continued", world=world, **SHARED["dropout"]).run()
    distributed.leave()


def final_files(state: Path) -> tuple[bytes, list]:
    """The last checkpoint: weights, momentum and sums as bytes; the history."""
    last = sorted(state.glob("step-*.json"))[-1]
    return last.with_suffix(".safetensors").read_bytes(), json.loads(last.read_text())["facts"]["history"]


def die_at_call(name: str, number: int) -> None:
    """End this process by SIGKILL just before the `number`-th call of `os.<name>`."""
    original, calls = getattr(os, name), iter(range(1, 10**9))

    def counted(*args, **kwargs):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, name, counted)


def in_child(state: Path, *, kill_after: float | None, call: tuple[str, int] | None = None) -> int:
    """Train in a forked child, killed after some seconds or at a call; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            if call is not None:
                die_at_call(*call)
            loop(state, checkpoint_seconds=0.0, epochs=4).run()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(3)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kills(folder: Path) -> None:
    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()  # what it imports on first use takes seconds
    in_child(folder / "warm", kill_after=None)
    started = time.perf_counter()
    assert in_child(folder / "whole", kill_after=None) == 0
    duration = time.perf_counter() - started
    whole = final_files(folder / "whole")
    draw = random.Random(0)
    chains: list[list] = [[draw.uniform(0.0, 0.6) * duration for _ in range(3)] for _ in range(3)]
    # inside a save: two files are renamed and three things fsynced a state
    chains += [[("replace", 9), ("replace", 4), ("fsync", 6)], [("fsync", 12), ("fsync", 5), ("replace", 1)]]
    for number, chain in enumerate(chains):
        state, steps, statuses = folder / f"chain-{number}", [], []
        for kill in chain:
            after, call = (None, kill) if isinstance(kill, tuple) else (kill, None)
            statuses.append(in_child(state, kill_after=after, call=call))
            found = sorted(state.glob("step-*.json"))
            steps.append(int(found[-1].stem.removeprefix("step-")) if found else 0)
        statuses.append(in_child(state, kill_after=None))
        same = final_files(state) == whole
        print(json.dumps({"chain": chain, "steps": steps, "statuses": statuses, "same": same}), flush=True)


if __name__ == "__main__":
    {"kills": kills, "ranks": ranks}[sys.argv[1]](Path(sys.argv[2]))
