"""The one training loop: pretraining and fine-tuning, one process or many, from the start or from a checkpoint.

A step's function depends on (weights, batch, seed, step) alone: the order of samples is a plan, views are keyed by
sample, dropout by (seed, step, microbatch), and ranks take whole microbatches. So a run that was killed and continued
gives the same bytes as one that was not.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from rootstock import rng
from rootstock.config.training import Training
from rootstock.data import loader, order
from rootstock.data.augment import TrainingViews
from rootstock.distributed import World
from rootstock.models.classifier import Classifier
from rootstock.training import checkpoint, memory, optim
from rootstock.training.batchnorm import RunningStatistics

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
AHEAD = 4  # microbatches decoded beyond the one in use

Point = tuple[str, float, int, int]  # metric, value, step, milliseconds since the epoch


class DivergedError(ValueError):
    """The loss is no longer a number; the message says when, and what to try."""


class Data(NamedTuple):
    """What is trained and validated on."""

    samples: loader.Samples
    train: np.ndarray  # int64, rows of the shard index
    val: np.ndarray
    image_size: int
    resize_size: int
    num_threads: int


class Outcome(NamedTuple):
    """What a training leaves beside its weights."""

    history: list[dict]  # rows of schema/history
    wall_seconds: float  # of all attempts together, validation and checkpoints included
    num_images: int  # seen in training, epochs × images
    seconds: dict[str, float]  # where the time went, all attempts together
    num_attempts: int


class Loop:
    """One training; `run` does it, from the newest whole checkpoint in `state` if there is one."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        training: Training,
        data: Data,
        views: TrainingViews,
        seed: int,
        world: World,
        state: Path,
        checkpoint_seconds: float,
        set_train_mode: Callable[[Classifier], None],
        send: Callable[[list[Point]], None],
    ):
        """Prepare.

        Args:
            set_train_mode: puts the classifier into training mode (a frozen backbone stays in evaluation mode).
            send: receives points once they are durable; points with equal timestamps may come twice.
            checkpoint_seconds: time between checkpoints; they change no result.
        """
        self.classifier = classifier.to(world.device)
        if world.device.type == "cuda":  # tensor cores want it; on CPUs it was a sixth slower
            self.classifier.network.to(memory_format=torch.channels_last)
        self._training, self._data, self._views = training, data, views
        self._seed, self._world, self._state = seed, world, state
        self._set_train_mode, self._send = set_train_mode, send
        self._checkpoint_seconds = checkpoint_seconds

        self._optimizer = optim.make(classifier, optim=training.optim)
        self._plateau = optim.Plateau(training.optim.schedule)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=training.precision == "fp16")
        self._statistics = RunningStatistics(classifier.network, world)
        self._loss = torch.nn.CrossEntropyLoss(reduction="sum", label_smoothing=training.label_smoothing)
        self._steps_per_epoch = order.num_steps(len(data.train), batch_size=training.batch_size)

        self._step = 0
        self._sums = torch.zeros(2, dtype=torch.float64, device=world.device)  # loss, correct, of this epoch so far
        self._history: list[dict] = []
        self._points: list[Point] = []
        self._seconds = dict.fromkeys(("data", "validation", "checkpoint", "all"), 0.0)
        self._num_attempts = 0

    def run(self) -> Outcome:
        """Train to the end.

        Raises:
            DivergedError: the loss became infinite or not a number.
        """
        self._resume()
        self._num_attempts += 1
        self._mark = self._saved = time.perf_counter()
        num_steps = self._steps_per_epoch * self._training.epochs
        with (
            closing(self._batches()) as batches,
            tqdm(
                total=num_steps, initial=self._step, unit="step", file=sys.stderr, disable=not self._world.is_first,
                mininterval=5.0,
            ) as progress,
        ):  # fmt: skip
            while self._step < num_steps:
                self._train_step(batches)
                progress.update()
                if self._step % self._steps_per_epoch == 0:
                    self._end_epoch()
                    progress.set_postfix({name: f"{self._history[-1][name]:.3f}" for name in ("val_loss", "val_top1")})
                if time.perf_counter() - self._saved > self._checkpoint_seconds:
                    self._save()
        if self._saved_step != self._step:
            self._save()
        self.classifier.eval()
        return Outcome(
            history=self._history,
            wall_seconds=self._seconds["all"],
            num_images=self._training.epochs * len(self._data.train),
            seconds=self._seconds,
            num_attempts=self._num_attempts,
        )

    # -- one step ------------------------------------------------------------------------------------------------

    def _train_step(self, batches: Iterator[loader.Batch]) -> None:
        epoch, step_in_epoch = divmod(self._step, self._steps_per_epoch)
        microbatches = self._microbatches(epoch, step_in_epoch)
        num_images = sum(map(len, microbatches))
        self._set_train_mode(self.classifier)
        self._set_learning_rate()
        self._statistics.begin_step()
        step_sums = torch.zeros_like(self._sums)
        out_of_memory = False
        for number in order.rank_share(len(microbatches), rank=self._world.rank, world_size=self._world.size):
            started = time.perf_counter()
            batch = next(batches)
            self._seconds["data"] += time.perf_counter() - started
            try:
                self._train_microbatch(batch, number=number, num_images=num_images, sums=step_sums)
            except torch.OutOfMemoryError:
                out_of_memory = True
            if out_of_memory:  # outside the handler: its traceback would keep the activations alive
                memory.refuse(
                    self.classifier,
                    microbatch_size=len(batch.labels),
                    image_size=self._data.image_size,
                    autocast=self._autocast(),
                )
        gradients = []
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:  # this rank had no microbatch in a short last batch
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self._world.sum([*gradients, step_sums])
        self._statistics.end_step(num_microbatches=len(microbatches))
        self._scaler.scale(self._sums)  # it only begins to exist at its first use, which this rank may not have had
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._sums += step_sums
        self._step += 1

    def _train_microbatch(self, batch: loader.Batch, *, number: int, num_images: int, sums: torch.Tensor) -> None:
        torch.manual_seed(rng.key("dropout", self._seed, self._step, number) >> 1)
        images, labels, shifts = self._to_device(batch.images_NHWC, batch.labels, batch.shifts)
        with self._autocast():
            logits = self.classifier(images, shifts)
        loss = self._loss(logits.float(), labels)
        self._scaler.scale(loss / num_images).backward()
        self._statistics.end_microbatch()
        sums += torch.stack([loss.detach().double(), (logits.argmax(1) == labels).sum().double()])

    def _set_learning_rate(self) -> None:
        lr = optim.learning_rate(
            (self._step + 1) / self._steps_per_epoch,
            optim=self._training.optim,
            num_epochs=self._training.epochs,
            num_reductions=self._plateau.num_reductions,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _microbatches(self, epoch: int, step_in_epoch: int) -> list[np.ndarray]:
        if getattr(self, "_ordered_epoch", None) != epoch:
            self._ordered_epoch = epoch
            self._order = order.epoch_order(self._data.train, seed=self._seed, epoch=epoch)
        return order.step_microbatches(
            self._order,
            step=step_in_epoch,
            batch_size=self._training.batch_size,
            microbatch_size=self._training.microbatch_size,
        )

    def _batches(self) -> Iterator[loader.Batch]:
        """This rank's microbatches from the current step to the end of training."""
        return loader.training_batches(
            self._data.samples,
            self._planned_chunks(),
            views=self._views,
            image_size=self._data.image_size,
            num_threads=self._data.num_threads,
            ahead=AHEAD,
        )

    def _planned_chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        for step in range(self._step, self._steps_per_epoch * self._training.epochs):
            epoch, step_in_epoch = divmod(step, self._steps_per_epoch)
            if step == self._step or step_in_epoch == 0:
                planned = order.epoch_order(self._data.train, seed=self._seed, epoch=epoch)
            microbatches = order.step_microbatches(
                planned,
                step=step_in_epoch,
                batch_size=self._training.batch_size,
                microbatch_size=self._training.microbatch_size,
            )
            for number in order.rank_share(len(microbatches), rank=self._world.rank, world_size=self._world.size):
                yield epoch, microbatches[number]

    # -- the end of an epoch -------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        epoch = self._step // self._steps_per_epoch
        train_loss, train_top1 = self._mean_sums(self._sums, len(self._data.train))
        self._sums.zero_()
        started = time.perf_counter()
        val_loss, val_top1 = self._validate()
        self._seconds["validation"] += time.perf_counter() - started
        self._plateau.observe(val_top1)
        row = {
            "epoch": epoch,
            "step": self._step,
            "lr": self._optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            "train_top1": train_top1,
            "val_loss": val_loss,
            "val_top1": val_top1,
        }
        self._history.append(row)
        now = time.time_ns() // 1_000_000
        self._points += [(name, float(value), self._step, now) for name, value in row.items() if name != "step"]

    def _mean_sums(self, sums: torch.Tensor, num_images: int) -> tuple[float, float]:
        loss, correct = (sums / num_images).tolist()
        if not np.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        return loss, correct

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} at step {self._step}, learning rate {self._optimizer.param_groups[0]['lr']:.3g}: "
            "try a smaller optim.lr or a longer optim.schedule.warmup_epochs"
        )

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        self.classifier.eval()
        size = self._training.microbatch_size
        chunks = [self._data.val[start : start + size] for start in range(0, len(self._data.val), size)]
        mine = [chunks[i] for i in order.rank_share(len(chunks), rank=self._world.rank, world_size=self._world.size)]
        sums = torch.zeros_like(self._sums)
        batches = loader.evaluation_batches(
            self._data.samples,
            mine,
            image_size=self._data.image_size,
            resize_size=self._data.resize_size,
            num_threads=self._data.num_threads,
            ahead=AHEAD,
        )
        for batch in batches:
            images, labels = self._to_device(batch.images_NHWC, batch.labels)
            with self._autocast():
                logits = self.classifier(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
            sums += torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double()])
        self._world.sum([sums])
        return self._mean_sums(sums, len(self._data.val))

    # -- continuation --------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Make the state durable, then send the points that belong to it: a resend carries the same timestamps."""
        started = time.perf_counter()
        self._mean_sums(self._sums, 1)  # a diverged state is never saved
        if not all(bool(parameter.isfinite().all()) for parameter in self.classifier.parameters()):
            raise self._diverged("a weight is not finite")  # the last step's loss was taken before its update
        self._seconds["all"] += started - self._mark
        self._mark = started
        if self._world.is_first:
            checkpoint.save(
                self._state,
                step=self._step,
                tensors={
                    **{f"model.{name}": tensor for name, tensor in self.classifier.state_dict().items()},
                    **checkpoint.optimizer_tensors(self._optimizer, dict(self.classifier.named_parameters())),
                    "sums": self._sums,
                },
                facts={
                    "history": self._history,
                    "num_attempts": self._num_attempts,
                    "plateau": self._plateau.state(),
                    "points": self._points,
                    "scaler": self._scaler.state_dict(),
                    "seconds": self._seconds,
                },
            )
            self._send(self._points)
        self._points = []
        self._saved_step = self._step
        self._saved = time.perf_counter()
        self._seconds["checkpoint"] += self._saved - started

    def _resume(self) -> None:
        self._saved_step = None
        found = checkpoint.latest(self._state)
        if found is None:
            return
        self._step, tensors, facts = found
        self._saved_step = self._step
        weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        self.classifier.load_state_dict(weights)
        checkpoint.load_optimizer(self._optimizer, dict(self.classifier.named_parameters()), tensors)
        self._sums.copy_(tensors["sums"])
        self._plateau.load(facts["plateau"])
        self._scaler.load_state_dict(facts["scaler"])
        self._history, self._seconds = facts["history"], facts["seconds"]
        self._num_attempts = facts["num_attempts"]
        if self._world.is_first:
            self._send([tuple(point) for point in facts["points"]])
            print(f"continues at step {self._step}", file=sys.stderr)

    # -- the device ----------------------------------------------------------------------------------------------

    def _to_device(self, *arrays: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self._world.device, non_blocking=True) for array in arrays]

    def _autocast(self) -> torch.autocast:
        precision = self._training.precision
        return torch.autocast(
            self._world.device.type, dtype=AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST
        )
