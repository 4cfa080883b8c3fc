"""From shards to uint8 batches: threads read, decode and view images ahead of the consumer, in the planned order."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from rootstock.data import decode
from rootstock.data.augment import TrainingViews


class Samples(Protocol):
    """What the loader needs of a set of shards."""

    keys: Sequence[str]  # (n,)
    labels: np.ndarray  # int64 (n,)

    def read(self, position: int) -> bytes:
        """Return the bytes of one image."""

    def decode(self, data: bytes) -> np.ndarray:
        """Return its pixels, uint8 (H, W, 3)."""


class Batch(NamedTuple):
    """N images of one size."""

    images_NHWC: np.ndarray  # uint8 (N, S, S, 3)
    labels: np.ndarray  # int64 (N,)
    shifts: np.ndarray  # float32 (N, 3), colour shift on the [0, 1] scale
    positions: np.ndarray  # int64 (N,), rows of the shard index


def training_batches(
    samples: Samples,
    chunks: Iterable[tuple[int, np.ndarray]],
    *,
    views: TrainingViews,
    image_size: int,
    num_threads: int,
    ahead: int,
) -> Iterator[Batch]:
    """Yield one batch for each chunk (epoch, positions), in order.

    Args:
        num_threads: decoding threads.
        ahead: chunks in flight beyond the one being consumed; bounds the memory.
    """

    def fill(batch: Batch, row: int, epoch: int, position: int) -> None:
        image = samples.decode(samples.read(position))
        batch.images_NHWC[row], batch.shifts[row] = views.view(image, epoch=epoch, key=samples.keys[position])

    return _batches(samples, chunks, fill=fill, image_size=image_size, num_threads=num_threads, ahead=ahead)


def evaluation_batches(
    samples: Samples,
    chunks: Iterable[np.ndarray],
    *,
    image_size: int,
    resize_size: int,
    num_threads: int,
    ahead: int,
) -> Iterator[Batch]:
    """Yield one batch of central crops for each chunk of positions, in order."""

    def fill(batch: Batch, row: int, _: int, position: int) -> None:
        resized = decode.resize_short(samples.decode(samples.read(position)), short_side=resize_size)
        batch.images_NHWC[row] = decode.center_crop(resized, size=image_size)

    numbered = ((0, positions) for positions in chunks)
    return _batches(samples, numbered, fill=fill, image_size=image_size, num_threads=num_threads, ahead=ahead)


def resized_images(
    samples: Samples, chunks: Iterable[np.ndarray], *, resize_size: int, num_threads: int, ahead: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield (positions, images) for each chunk: whole images at a short side of `resize_size`, uint8 (H, W, 3)."""

    def load(position: int) -> np.ndarray:
        return decode.resize_short(samples.decode(samples.read(position)), short_side=resize_size)

    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        submit = lambda positions: (positions, [pool.submit(load, int(position)) for position in positions])  # noqa: E731
        for positions, images in _in_flight((submit(positions) for positions in chunks), ahead=ahead, pool=pool):
            yield positions, [image.result() for image in images]


def _batches(
    samples: Samples,
    chunks: Iterable[tuple[int, np.ndarray]],
    *,
    fill: Callable[[Batch, int, int, int], None],
    image_size: int,
    num_threads: int,
    ahead: int,
) -> Iterator[Batch]:
    def submit(epoch: int, positions: np.ndarray) -> tuple[Batch, list[Future]]:
        num_images = len(positions)
        batch = Batch(
            images_NHWC=np.empty((num_images, image_size, image_size, 3), np.uint8),
            labels=samples.labels[positions],
            shifts=np.zeros((num_images, 3), np.float32),
            positions=positions,
        )
        rows = [pool.submit(fill, batch, row, epoch, int(position)) for row, position in enumerate(positions)]
        return batch, rows

    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        submitted = (submit(epoch, positions) for epoch, positions in chunks)
        for batch, rows in _in_flight(submitted, ahead=ahead, pool=pool):
            for row in rows:
                row.result()
            yield batch


def _in_flight(submitted: Iterator[tuple], *, ahead: int, pool: ThreadPoolExecutor) -> Iterator[tuple]:
    """Keep `ahead` submissions beyond the yielded one; on leaving early, drop what has not begun."""
    waiting: collections.deque[tuple] = collections.deque()
    try:
        for item in submitted:
            waiting.append(item)
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
