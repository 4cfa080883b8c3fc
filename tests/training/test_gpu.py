"""What only a GPU can show: `make test-gpu` on a machine with one; everywhere else these skip."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock import distributed
from rootstock.config.model import AlexNetArch, ResNetArch
from rootstock.config.training import Training
from rootstock.data.augment import TrainingViews
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.training.loop import Data, Loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
NUM_CLASSES = 4


class Samples:
    """Coloured noise, a class a colour."""

    labels = np.arange(96, dtype=np.int64) % NUM_CLASSES

    def read(self, position: int) -> bytes:
        return str(position).encode()

    def decode(self, data: bytes, **_: object) -> np.ndarray:
        position = int(data)
        image = np.random.default_rng(position).integers(0, 128, (72, 72, 3), dtype=np.uint8)
        image[..., position % NUM_CLASSES % 3] += np.uint8(60 + 30 * (position % NUM_CLASSES // 3))
        return image


def train(state: Path, *, precision: str, arch: ResNetArch | AlexNetArch, image_size: int) -> Loop:
    training = Training.model_validate(
        {
            "epochs": 4,
            "batch_size": 16,
            "microbatch_size": 8,
            "precision": precision,
            "label_smoothing": 0.0,
            "optim": {
                "lr": 0.01,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "decay_norm_and_bias": False,
                "schedule": {"kind": "cosine", "warmup_epochs": 1.0, "final_fraction": 0.0},
            },
            "augment": {
                "scale": [0.8, 1.0],
                "ratio": [0.9, 1.1],
                "flip": 0.5,
                "antialias": False,
                "colour_pca_std": 0.0,
            },
        }
    )
    augment = training.augment
    normalise = Normalise("standardise", mean=torch.full((3, 1, 1), 0.3), std=torch.full((3, 1, 1), 0.2))
    network = build(arch, image_size=image_size, num_classes=NUM_CLASSES, seed=0)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    loop = Loop(
        Classifier(normalise, network),
        training=training,
        data=Data(Samples(), np.arange(72), np.arange(72, 96), image_size, image_size, 2),
        views=TrainingViews(
            image_size=image_size,
            scale=augment.scale,
            ratio=augment.ratio,
            flip=0.5,
            antialias=False,
            colour_pca=None,
            seed=0,
        ),
        seed=0,
        world=distributed.World(rank=0, size=1, device=torch.device("cuda")),
        state=state,
        checkpoint_seconds=1e9,
        set_train_mode=Classifier.train,
        send=lambda points: None,
    )
    loop.run()
    return loop


RESNET = ResNetArch(name="resnet18", stem="imagenet", width=64, zero_init_last_bn=True)
ALEXNET = AlexNetArch(name="alexnet", groups=2, activation="relu", local_response_norm=True, dropout=0.5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("arch", "image_size"), [(RESNET, 64), (ALEXNET, 67)], ids=["resnet18", "alexnet"])
def test_two_trainings_give_the_same_bytes(tmp_path: Path, precision: str, arch, image_size: int) -> None:
    runs = [train(tmp_path / name, precision=precision, arch=arch, image_size=image_size) for name in ("a", "b")]
    states = [run.classifier.state_dict() for run in runs]
    for name, tensor in states[0].items():
        assert torch.isfinite(tensor.float()).all(), name
        assert torch.equal(tensor, states[1][name]), name


def test_half_precision_learns_like_full(tmp_path: Path) -> None:
    outcomes = {p: train(tmp_path / p, precision=p, arch=RESNET, image_size=64) for p in ("fp32", "bf16", "fp16")}
    losses = {p: loop._history[-1]["train_loss"] for p, loop in outcomes.items()}
    first = outcomes["fp32"]._history[0]["train_loss"]
    for precision, loss in losses.items():
        assert loss < 0.8 * first, (precision, losses)


def test_gpu_and_cpu_give_the_same_logits() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    normalise = Normalise("standardise", mean=torch.full((3, 1, 1), 0.3), std=torch.full((3, 1, 1), 0.2))
    classifier = Classifier(normalise, build(RESNET, image_size=64, num_classes=NUM_CLASSES, seed=0)).eval()
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        on_cpu = classifier(images)
        on_gpu = classifier.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)
