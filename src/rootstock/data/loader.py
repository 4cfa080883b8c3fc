"""From shards to uint8 batches: threads read, decode and view images ahead of the consumer, in the planned order.

Little is done under Python's global lock: a thread takes several rows at a time, decodes each into memory of its own
and writes the view into its place in the batch; and the memory of batches that nobody holds any more is used again.
"""

import collections
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

import numpy as np

from rootstock.data import decode
from rootstock.data.augment import Drawn, TrainingViews

ROWS = 8  # of a batch that a thread takes at a time


class Samples(Protocol):
    """What the loader needs of a set of shards."""

    keys: Sequence[str]  # (n,)
    labels: np.ndarray  # int64 (n,)

    def read(self, position: int) -> bytes:
        """Return the bytes of one image."""

    def decode(
        self, data: bytes, *, scratch: decode.Scratch | None, num_rows: Callable[[int, int], int] | None
    ) -> np.ndarray:
        """Return its pixels, uint8 (H, W, 3), in this memory if there is some.

        Where `num_rows` is asked, with height and width, rows below that many from the top may be left out.
        """


class Batch(NamedTuple):
    """N images of one size; they stay as they are for as long as anything refers to one of the arrays."""

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

    scratch = decode.Scratch()

    def fill(batch: Batch, row: int, epoch: int, position: int) -> None:
        drawn: Drawn | None = None

        def num_rows(height: int, width: int) -> int:
            nonlocal drawn
            drawn = views.draw(height, width, epoch=epoch, key=samples.keys[position])
            return drawn.num_rows

        image = samples.decode(samples.read(position), scratch=scratch, num_rows=num_rows)
        if drawn is None:  # not asked for: the image is whole
            num_rows(*image.shape[:2])
        views.cut(image, drawn, out=batch.images_NHWC[row])
        batch.shifts[row] = drawn.shift

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

    scratch = decode.Scratch()

    def fill(batch: Batch, row: int, _: int, position: int) -> None:
        image = samples.decode(samples.read(position), scratch=scratch, num_rows=None)
        resized = decode.resize_short(image, short_side=resize_size)
        batch.images_NHWC[row] = decode.center_crop(resized, size=image_size)

    numbered = ((0, positions) for positions in chunks)
    return _batches(samples, numbered, fill=fill, image_size=image_size, num_threads=num_threads, ahead=ahead)


def resized_images(
    samples: Samples, chunks: Iterable[np.ndarray], *, resize_size: int, num_threads: int, ahead: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield (positions, images) for each chunk: whole images at a short side of `resize_size`, uint8 (H, W, 3)."""

    def load(position: int) -> np.ndarray:
        # not into scratch memory: an image that has its size already is handed on
        image = samples.decode(samples.read(position), scratch=None, num_rows=None)
        return decode.resize_short(image, short_side=resize_size)

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
    memory = _Memory()
    is_left = threading.Event()

    def fill_rows(batch: Batch, start: int, epoch: int, positions: list[int]) -> None:
        for row, position in enumerate(positions, start):
            if is_left.is_set():
                return
            fill(batch, row, epoch, position)

    def submit(epoch: int, positions: np.ndarray) -> tuple[Batch, list[Future]]:
        num_images = len(positions)
        batch = Batch(
            images_NHWC=memory.take((num_images, image_size, image_size, 3)),
            labels=samples.labels[positions],
            shifts=np.zeros((num_images, 3), np.float32),
            positions=positions,
        )
        starts = range(0, num_images, ROWS)
        rows = [pool.submit(fill_rows, batch, at, epoch, positions[at : at + ROWS].tolist()) for at in starts]
        return batch, rows

    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        submitted = (submit(epoch, positions) for epoch, positions in chunks)
        try:
            for batch, rows in _in_flight(submitted, ahead=ahead, pool=pool):
                wait(rows)
                for row in rows:
                    row.result()
                yield batch
                del batch  # while this waits to be asked for the next one, the consumer alone decides what is held
        finally:
            is_left.set()


class _Memory:
    """Memory for arrays, used again when the last array that lies in it is gone: fresh pages cost time."""

    def __init__(self):
        self._free: collections.deque[mmap.mmap] = collections.deque()  # its ends may be used from any thread

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array, uint8, its values undefined."""
        num_bytes = math.prod(shape)
        memory = self._free.popleft() if self._free else None
        if memory is None or len(memory) < num_bytes:
            memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.uint8, num_bytes)  # every view of it refers to this array
        weakref.finalize(whole, self._free.append, memory).atexit = False
        return whole.reshape(shape)


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
