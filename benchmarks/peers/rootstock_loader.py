"""Our loader through its public door, and what bounds it: bare loops over the same decoder, in as many threads."""

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import resident  # beside this script
import simplejpeg
import torch

from rootstock import rng
from rootstock.data import augment, decode, loader, order
from rootstock.data.shard_set import ShardSet
from rootstock.models.classifier import Normalise

SEED = 0
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AHEAD = 2
NUM_BOXES = 4096  # crops drawn beforehand for the bare loops


def make(spec: dict) -> tuple[dict, object]:
    """Build what `spec["kind"]` names: train, eval, crop-loop, eval-loop, decode-loop or resume.

    `spec`: shards, verify, keyed, normalise, antialias, batch_size, image_size, resize_size, num_cores.
    """
    torch.set_num_threads(1)
    samples = ShardSet(Path(spec["shards"]), verify="always")
    if spec.get("verify") == "never":  # the checking alone is taken away; unchecked images would come whole, too
        samples.read = ShardSet(Path(spec["shards"]), verify="never").read
    about = {
        "versions": {
            name: version(name) for name in ("albumentations", "numpy", "opencv-python-headless", "simplejpeg")
        },
        "how": f"{spec['num_cores']} threads",
    }
    if not spec.get("keyed", True):
        draw_without_keys()
    if spec.get("count_free"):
        measure = resident.stream(training(samples, spec, first_step=0), images=images_of)
        return about, with_free_seconds(measure)
    kinds = {
        "train": lambda: resident.stream(finished(training(samples, spec, first_step=0), spec), images=images_of),
        "eval": lambda: resident.stream(finished(evaluation(samples, spec), spec), images=images_of),
        "resume": lambda: resident.job(lambda: resumed(spec)),
        "crop-loop": lambda: threads_loop(samples, spec, crop_into(spec)),
        "eval-loop": lambda: threads_loop(samples, spec, centre_into(spec)),
        "decode-loop": lambda: threads_loop(samples, spec, lambda image, row, number: None),
    }
    return about, kinds[spec["kind"]]()


def images_of(batch: object) -> object:
    """Pick the images of our batch, or of a normalised one."""
    return getattr(batch, "images_NHWC", batch)


def training(samples: ShardSet, spec: dict, *, first_step: int) -> Iterator[loader.Batch]:
    """Yield training batches, epoch after epoch, from a step on."""
    views = augment.TrainingViews(
        image_size=spec["image_size"],
        scale=SCALE,
        ratio=RATIO,
        flip=0.5,
        antialias=spec.get("antialias", False),
        colour_pca=None,
        seed=SEED,
    )
    return loader.training_batches(
        samples,
        chunks(samples.positions(["train"], gate=None), spec["batch_size"], first_step=first_step),
        views=views,
        image_size=spec["image_size"],
        num_threads=spec["num_cores"],
        ahead=AHEAD,
    )


def chunks(positions: np.ndarray, batch_size: int, *, first_step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (epoch, positions) of each step from `first_step` on, without end."""
    steps = order.num_steps(len(positions), batch_size=batch_size)
    for step in itertools.count(first_step):
        epoch, in_epoch = divmod(step, steps)
        planned = order.epoch_order(positions, seed=SEED, epoch=epoch)
        yield epoch, *order.step_microbatches(planned, step=in_epoch, batch_size=batch_size, microbatch_size=batch_size)


def evaluation(samples: ShardSet, spec: dict) -> Iterator[loader.Batch]:
    """Yield evaluation batches over and over."""
    positions, size = samples.positions(["train"], gate=None), spec["batch_size"]
    starts = itertools.cycle(range(0, len(positions) - size + 1, size))
    return loader.evaluation_batches(
        samples,
        (positions[start : start + size] for start in starts),
        image_size=spec["image_size"],
        resize_size=spec["resize_size"],
        num_threads=spec["num_cores"],
        ahead=AHEAD,
    )


def finished(batches: Iterator[loader.Batch], spec: dict) -> Iterator:
    """Normalise on the CPU, where asked to, as the model does on its device."""
    if not spec.get("normalise"):
        return batches
    normalise = Normalise.fit("standardise", mean=MEAN, std=STD, mean_image=None, image_size=spec["image_size"])
    return (normalise(torch.from_numpy(batch.images_NHWC)) for batch in batches)


def draw_without_keys() -> None:
    """Take away what keyed randomness costs: a thread's generator just goes on. For measuring only."""
    rng.restart = lambda generator, *names: None


# calls that let go of Python's global lock while they work
FREE = (
    (simplejpeg, "decode_jpeg"),
    (cv2, "resize"),
    (cv2, "flip"),
    (torch.nn.functional, "interpolate"),
    (os, "pread"),
    (hashlib, "sha256"),
)


def with_free_seconds(measure: Callable[..., dict]) -> Callable[..., dict]:
    """Count, beside what is measured, the CPU seconds that its one loading thread spends without the global lock."""
    spent = [0.0]

    def timed(function: Callable) -> Callable:
        def call(*values: object, **named: object) -> object:
            start = time.thread_time()
            try:
                return function(*values, **named)
            finally:
                spent[0] += time.thread_time() - start

        return call

    for module, name in FREE:
        setattr(module, name, timed(getattr(module, name)))

    def measured(warm_up: int, num_batches: int) -> dict:
        measure(warm_up=warm_up, num_batches=1)
        spent[0] = 0.0
        return {**measure(warm_up=0, num_batches=num_batches), "free_seconds": spent[0]}

    return measured


def resumed(spec: dict) -> dict:
    """Stop in mid-epoch, open everything anew at the cursor, and compare what follows with what would have."""
    num_batches = 8
    with ShardSet(Path(spec["shards"]), verify="always") as samples:
        steps = order.num_steps(len(samples.positions(["train"], gate=None)), batch_size=spec["batch_size"])
        cut = steps + steps // 2  # in the middle of the second epoch
        whole = [digest(batch) for batch in itertools.islice(training(samples, spec, first_step=0), cut + num_batches)]
    start = time.perf_counter()
    with ShardSet(Path(spec["shards"]), verify="always") as samples:
        batches = training(samples, spec, first_step=cut)
        found = [digest(next(batches))]
        seconds = time.perf_counter() - start
        found += [digest(batch) for batch in itertools.islice(batches, num_batches - 1)]
    return {"first_batch_seconds": seconds, "same": found == whole[cut:], "num_batches": num_batches, "num_images": 0}


def digest(batch: loader.Batch) -> str:
    """Hash a batch's pixels, labels and positions."""
    arrays = (batch.images_NHWC, batch.labels, batch.positions)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def threads_loop(samples: ShardSet, spec: dict, finish: Callable[[np.ndarray, np.ndarray, int], None]) -> Callable:
    """Measure threads that decode bytes in memory and write into one batch: no reading, no checking, no futures."""
    encoded = [samples.read(position) for position in range(len(samples))]
    shape = (spec["batch_size"], spec["image_size"], spec["image_size"], 3)
    batch = np.zeros(shape, np.uint8)
    is_jpeg = samples.facts["decode"]["backend"] == "simplejpeg"

    def work(numbers: Iterator[int], stop: int) -> None:
        while (number := next(numbers)) < stop:
            data = encoded[number % len(encoded)]
            image = simplejpeg.decode_jpeg(data, colorspace="RGB") if is_jpeg else samples.decode(data)
            finish(image, batch[number % len(batch)], number)

    def run(num_images: int) -> None:
        numbers = itertools.count()  # its `next` is atomic
        threads = [threading.Thread(target=work, args=(numbers, num_images)) for _ in range(spec["num_cores"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def measure(warm_up: int, num_batches: int) -> dict:
        run(warm_up * len(batch))
        clock = resident.Clock()
        run(num_batches * len(batch))
        return {**clock.read(), "num_images": num_batches * len(batch), "output": f"uint8 {'×'.join(map(str, shape))}"}

    return measure


def crop_into(spec: dict) -> Callable[[np.ndarray, np.ndarray, int], None]:
    """Cut, resize and flip into a row, the crops drawn beforehand as torchvision draws them."""
    draws = np.random.default_rng(SEED)
    areas = draws.uniform(*SCALE, NUM_BOXES)
    ratios = np.exp(draws.uniform(*np.log(RATIO), NUM_BOXES))
    places, flips = draws.random((NUM_BOXES, 2)), draws.random(NUM_BOXES) < 0.5
    size = spec["image_size"]

    def finish(image: np.ndarray, row: np.ndarray, number: int) -> None:
        number %= NUM_BOXES
        high, wide = image.shape[:2]
        area = areas[number] * high * wide
        height = min(high, max(1, round((area / ratios[number]) ** 0.5)))
        width = min(wide, max(1, round((area * ratios[number]) ** 0.5)))
        top, left = int(places[number, 0] * (high - height + 1)), int(places[number, 1] * (wide - width + 1))
        crop = image[top : top + height, left : left + width]
        if spec.get("antialias"):
            resized = decode.resize(crop, height=size, width=size)
        else:
            resized = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
        if flips[number]:
            cv2.flip(resized, 1, dst=row)
        else:
            row[:] = resized

    return finish


def centre_into(spec: dict) -> Callable[[np.ndarray, np.ndarray, int], None]:
    """Resize to the short side and cut the centre into a row."""

    def finish(image: np.ndarray, row: np.ndarray, number: int) -> None:
        row[:] = decode.center_crop(decode.resize_short(image, short_side=spec["resize_size"]), size=spec["image_size"])

    return finish


if __name__ == "__main__":
    resident.serve(make)
