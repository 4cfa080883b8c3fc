"""One loop: the same function for any ranks and interruptions; it learns; it stops where it must."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.config.model import ResNetArch
from rootstock.models import bundle
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise
from rootstock.training import checkpoint, transfer
from rootstock.training.loop import DivergedError

SCRIPT = Path(__file__).with_name("toy_training.py")
COSINE = {"kind": "cosine", "warmup_epochs": 0.0, "final_fraction": 0.0}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def environment(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("ROOTSTOCK_DEVICE", "cpu")


def run_script(*arguments: str | Path, timeout: float = 120) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def weights(state: Path) -> dict[str, torch.Tensor]:
    return checkpoint.latest(state)[1]


def history(state: Path) -> list[dict]:
    return checkpoint.latest(state)[2]["history"]


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of any tensor, relative to its own size (to 1 if that is smaller).

    The gradient of a bias before batch normalisation is zero: its momentum is nothing but rounding.
    """
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max() / max(second[name].abs().max(), 1)) for name in first)


# ---------------------------------------------------------------------------------------------------- interruptions


def test_a_run_killed_at_any_moment_continues_to_the_same_bytes(tmp_path, environment):
    chains = [json.loads(line) for line in run_script(SCRIPT, "kills", tmp_path).splitlines()]
    assert len(chains) == 5
    for chain in chains:
        assert chain["same"], chain
        assert chain["statuses"][-1] == 0, chain
    killed = [status == 9 for chain in chains for status in chain["statuses"][:-1]]
    assert sum(killed) >= 10, "too few kills hit a running training"
    within = [step for chain in chains for step in chain["steps"] if 0 < step < 12 and step % 3]
    assert within, "no kill hit the inside of an epoch"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_stopping_after_any_step_and_going_on_changes_nothing(toy, tmp_path, monkeypatch, precision):
    options = {"network": "dropout", "precision": precision, "epochs": 2, "checkpoint_seconds": 0.0}
    toy.loop(tmp_path / "whole", **options).run()

    class StopError(Exception):
        pass

    for _ in range(4):  # stops right after each of the first saves
        saved = []

        def save_and_stop(points, saved=saved):
            saved.append(points)
            if len(saved) == 2:  # the first call may be the resend
                raise StopError

        with pytest.raises(StopError):
            toy.loop(tmp_path / "stopped", send=save_and_stop, **options).run()
    outcome = toy.loop(tmp_path / "stopped", **options).run()
    assert toy.final_files(tmp_path / "stopped") == toy.final_files(tmp_path / "whole")
    assert outcome.num_attempts == 5
    assert checkpoint.latest(tmp_path / "stopped")[2]["scaler"] == checkpoint.latest(tmp_path / "whole")[2]["scaler"]


def test_a_finished_training_gives_its_outcome_again_without_a_step(toy, tmp_path):
    first = toy.loop(tmp_path / "state", epochs=1).run()
    classifier = toy.classifier("dropout", seed=99)  # other weights, to be replaced by the state's
    again = toy.loop(tmp_path / "state", network=classifier, epochs=1).run()
    assert again.history == first.history
    assert again.num_images == first.num_images == 22
    saved = weights(tmp_path / "state")
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in classifier.state_dict().items())
    assert not classifier.training


# ------------------------------------------------------------------------------------------- the same for any ranks


def test_two_ranks_compute_what_one_does(toy, tmp_path, environment):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run_script(*launcher, SCRIPT, "ranks", tmp_path / "two")
    for name, options in toy.SHARED.items():
        toy.loop(tmp_path / "one" / name, **options).run()
        one, two = weights(tmp_path / "one" / name), weights(tmp_path / "two" / name)
        # sums of gradients are taken in another order; half precision rounds them at each microbatch
        assert largest_difference(one, two) < (2e-3 if name == "half-precision" else 3e-6), name
        for alone, together in zip(history(tmp_path / "one" / name), history(tmp_path / "two" / name), strict=True):
            assert together == pytest.approx(alone, rel=1e-5 if name != "half-precision" else 1e-2), name
    whole, continued = weights(tmp_path / "two" / "dropout"), weights(tmp_path / "two" / "continued")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_the_microbatch_is_a_part_of_the_function(toy, tmp_path):
    """Without this the test above could pass on a network that never mixes samples."""
    options = {"network": "dropout", "num_train": 32, "batch": 16, "epochs": 1}
    toy.loop(tmp_path / "whole", micro=16, **options).run()
    toy.loop(tmp_path / "halves", micro=8, **options).run()
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "halves")) > 1e-3


def test_running_statistics_are_the_mean_over_the_steps_microbatches(toy, tmp_path):
    seen = []
    network = toy.DropoutNetwork(0)
    layer = network.features[1]
    layer.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach().clone()) if module.training else None
    )
    classifier = Classifier(Normalise("channel-mean", mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1)), network)
    toy.loop(tmp_path / "state", network=classifier, num_train=8, batch=8, micro=4, epochs=1).run()
    assert len(seen) == 2
    mean = torch.stack([images.mean((0, 2, 3)) for images in seen]).mean(0)
    variance = torch.stack([images.var((0, 2, 3), unbiased=True) for images in seen]).mean(0)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * variance)
    assert layer.momentum == 0.1


def test_accumulated_gradients_are_the_gradient_of_the_mean_loss(toy, tmp_path):
    """One step of plain SGD on a network without batch normalisation, against the closed form by autograd."""
    classifier = toy.classifier("dropout", seed=0)
    classifier.network.features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 32))
    classifier.network.dropout = torch.nn.Identity()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    batches = []
    classifier.register_forward_pre_hook(
        lambda module, inputs: batches.append([part.clone() for part in inputs]) if module.training else None
    )
    constant = COSINE | {"final_fraction": 1.0}
    options = {"num_train": 6, "batch": 8, "micro": 4, "epochs": 1, "lr": 0.1, "schedule": constant}
    toy.loop(tmp_path / "state", network=classifier, **options).run()
    assert [len(images) for images, _ in batches] == [4, 2]
    images, shifts = (torch.cat(parts) for parts in zip(*batches, strict=True))
    positions = toy.loop(tmp_path / "other", num_train=6, batch=8, micro=4)._microbatches(0, 0)
    labels = torch.from_numpy(np.concatenate(positions) % toy.NUM_CLASSES)
    after = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    classifier.load_state_dict(before)
    classifier.zero_grad()
    torch.nn.functional.cross_entropy(classifier(images, shifts), labels).backward()
    for name, parameter in classifier.named_parameters():
        decay = 1e-3 * before[name] if parameter.ndim > 1 else 0
        torch.testing.assert_close(after[name], before[name] - 0.1 * (parameter.grad + decay))


# ------------------------------------------------------------------------------------------- it is random by seed alone


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_decoding_threads(toy, tmp_path):
    toy.loop(tmp_path / "a", num_threads=1, epochs=1).run()
    torch.manual_seed(12345)
    np.random.default_rng(5)
    toy.loop(tmp_path / "b", num_threads=5, epochs=1, checkpoint_seconds=0.0).run()
    toy.loop(tmp_path / "c", seed=1, epochs=1).run()
    assert toy.final_files(tmp_path / "a") == toy.final_files(tmp_path / "b")
    assert toy.final_files(tmp_path / "a") != toy.final_files(tmp_path / "c")


# --------------------------------------------------------------------------------------------------------- it learns


def test_the_first_loss_is_that_of_a_guess(toy, tmp_path):
    outcome = toy.loop(tmp_path / "state", network="resnet", num_train=64, batch=64, micro=64, epochs=1, lr=1e-12).run()
    assert outcome.history[0]["train_loss"] == pytest.approx(math.log(toy.NUM_CLASSES), rel=0.1)
    assert outcome.history[0]["val_loss"] == pytest.approx(math.log(toy.NUM_CLASSES), rel=0.1)


def test_one_batch_can_be_learned_by_heart(toy, tmp_path):
    options = {"network": "resnet", "num_train": 8, "batch": 8, "micro": 8, "scale": (1.0, 1.0)}
    outcome = toy.loop(tmp_path / "state", epochs=40, lr=0.02, schedule=COSINE, **options).run()
    assert outcome.history[-1]["train_top1"] == 1.0
    assert outcome.history[-1]["train_loss"] < 0.1
    assert [row["epoch"] for row in outcome.history] == list(range(1, 41))
    assert [row["step"] for row in outcome.history] == list(range(1, 41))


def test_a_single_image_left_over_joins_the_batch_before(toy, tmp_path):
    """Batch normalisation over 1×1 pixels of one image has no variance: torch refuses it."""
    outcome = toy.loop(tmp_path / "state", network="resnet", num_train=17, batch=8, micro=8, epochs=1).run()
    assert outcome.history[-1]["step"] == 2


def test_a_frozen_backbone_keeps_its_bytes(toy, tmp_path):
    arch = ResNetArch(name="resnet18", stem="small", width=8, zero_init_last_bn=False)
    normalise = Normalise.fit("standardise", mean=[0.5] * 3, std=[0.2] * 3, mean_image=None, image_size=8)
    source = Classifier(normalise, build(arch, image_size=8, num_classes=7, seed=3))
    facts = bundle.describe(
        source, class_names=list("abcdefg"), image_size=8, resize_size=8,
        trained_on={"collection": "demo", "splits": ["train"], "num_images": 5},
    )  # fmt: skip
    bundle.save(tmp_path / "pretrained", source, facts)
    classifier = transfer.start(
        "linear", pretrained=tmp_path / "pretrained", num_classes=toy.NUM_CLASSES, normalise=None, seed=0
    )
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    toy.loop(
        tmp_path / "state", network=classifier, epochs=2, set_train_mode=lambda c: transfer.set_train_mode(c, "linear"),
    ).run()  # fmt: skip
    changed = [name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])]
    head = f"network.{classifier.network.HEAD}."
    assert sorted(changed) == [f"{head}bias", f"{head}weight"]


# ------------------------------------------------------------------------------------------------- it stops honestly


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_divergence_is_an_error_and_no_diverged_state_is_kept(toy, tmp_path, checkpoint_seconds):
    with pytest.raises(DivergedError) as caught:
        toy.loop(tmp_path / "state", lr=1e30, schedule=COSINE, checkpoint_seconds=checkpoint_seconds).run()
    assert "at step " in str(caught.value)
    assert str(caught.value).endswith("try a smaller optim.lr or a longer optim.schedule.warmup_epochs")
    found = checkpoint.latest(tmp_path / "state")
    if found is not None:
        assert all(bool(tensor.isfinite().all()) for tensor in found[1].values())


def test_weights_that_are_no_numbers_are_not_saved_either(toy, tmp_path):
    """The loss of the step that ruins the weights is still finite."""
    loop = toy.loop(tmp_path / "state", checkpoint_seconds=0.0)
    original = loop._optimizer.step

    def ruin(*args, **kwargs):
        original(*args, **kwargs)
        with torch.no_grad():
            loop.classifier.network.head.weight[0, 0] = float("nan")

    loop._optimizer.step = ruin
    with pytest.raises(DivergedError, match="a weight is not finite at step 1, learning rate"):
        loop.run()
    assert checkpoint.latest(tmp_path / "state") is None


def test_points_are_sent_once_they_are_durable_and_again_with_the_same_timestamps(toy, tmp_path):
    state, sent = tmp_path / "state", []

    def send(points):
        durable = checkpoint.latest(state)
        assert durable is not None
        assert [list(point) for point in points] == durable[2]["points"]
        sent.extend(map(tuple, points))
        if len(sent) == 6:  # the first epoch's; the store is gone before it can answer
            raise ConnectionError

    with pytest.raises(ConnectionError):
        toy.loop(state, epochs=3, checkpoint_seconds=0.0, send=send).run()
    toy.loop(state, epochs=3, checkpoint_seconds=0.0, send=send).run()
    assert len(sent) == 6 + 3 * 6, "the first epoch's points came twice"
    assert len(set(sent)) == 3 * 6, "and were the same"
    assert {name for name, *_ in sent} == {"epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1"}
    assert sorted({step for _, _, step, _ in sent}) == [3, 6, 9]


def test_the_plateau_schedule_reduces_the_rate_by_validation_also_across_an_interruption(toy, tmp_path):
    schedule = {"kind": "plateau", "warmup_epochs": 0.0, "patience": 1, "factor": 0.5}
    options = {"lr": 1e-9, "schedule": schedule, "epochs": 5, "checkpoint_seconds": 0.0}

    def stop_in_the_fourth_epoch(points):
        if checkpoint.latest(tmp_path / "state")[0] == 10:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        toy.loop(tmp_path / "state", send=stop_in_the_fourth_epoch, **options).run()
    outcome = toy.loop(tmp_path / "state", **options).run()
    # such a rate learns nothing: validation is as good after each epoch, so every epoch but the first reduces
    assert [row["lr"] for row in outcome.history] == pytest.approx([1e-9, 1e-9, 5e-10, 2.5e-10, 1.25e-10])
