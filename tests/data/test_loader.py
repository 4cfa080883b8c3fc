"""The loader yields the plan: in order, whole, a bounded way ahead; and it ends promptly whenever it is left."""

import threading
import time

import numpy as np
import pytest
import simplejpeg
import torch

from rootstock.data.augment import TrainingViews
from rootstock.data.decode import center_crop, decode, resize_short
from rootstock.data.loader import Batch, evaluation_batches, resized_images, training_batches

SIZE = 8


class Samples:
    """Images made of their position; counts what is under way, may be slow or broken."""

    def __init__(self, num_images: int = 60, *, seconds: float = 0.0, broken: int | None = None):
        self.labels = np.arange(num_images, dtype=np.int64) % 7
        self.keys = [f"class/{position}" for position in range(num_images)]
        self.seconds, self.broken = seconds, broken
        self.started: list[int] = []
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        with self._lock:
            self.started.append(position)
        time.sleep(self.seconds)
        if position == self.broken:
            raise ValueError(f"image {position} is broken")
        return str(position).encode()

    def decode(self, data: bytes, **_: object) -> np.ndarray:
        position = int(data)
        return np.random.default_rng(position).integers(0, 256, (SIZE + position % 3, SIZE + position % 5, 3), np.uint8)


VIEWS = TrainingViews(
    image_size=SIZE, scale=(0.5, 1.0), ratio=(0.8, 1.25), flip=0.5, antialias=False, colour_pca=np.eye(3) * 0.1, seed=1
)
CHUNKS = [(0, np.array([5, 1, 9])), (0, np.array([2])), (1, np.arange(20, 31)), (2, np.array([5, 5]))]


def batches(samples: Samples, chunks=CHUNKS, *, num_threads: int = 2, ahead: int = 2):
    return training_batches(samples, chunks, views=VIEWS, image_size=SIZE, num_threads=num_threads, ahead=ahead)


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_batches_follow_the_plan():
    found = list(batches(Samples()))
    assert [batch.positions.tolist() for batch in found] == [positions.tolist() for _, positions in CHUNKS]
    for (epoch, positions), batch in zip(CHUNKS, found, strict=True):
        assert batch.images_NHWC.shape == (len(positions), SIZE, SIZE, 3)
        np.testing.assert_array_equal(batch.labels, positions % 7)
        for row, position in enumerate(positions):
            image = Samples().decode(str(position).encode())
            pixels, shift = VIEWS.view(image, epoch=epoch, key=f"class/{position}")
            np.testing.assert_array_equal(batch.images_NHWC[row], pixels)
            np.testing.assert_array_equal(batch.shifts[row], shift)
    assert alive() == []


@pytest.mark.parametrize(("num_threads", "ahead"), [(1, 0), (1, 3), (4, 1), (7, 20)])
def test_neither_threads_nor_prefetching_change_a_byte(num_threads, ahead):
    reference = [[part.tobytes() for part in batch] for batch in batches(Samples())]
    found = batches(Samples(seconds=0.001), num_threads=num_threads, ahead=ahead)
    assert [[part.tobytes() for part in batch] for batch in found] == reference


def test_a_batch_is_never_overwritten():
    """A consumer may keep a batch while the next ones are made."""
    running = batches(Samples(), ahead=1)
    first = next(running)
    copy = first.images_NHWC.copy()
    list(running)
    np.testing.assert_array_equal(first.images_NHWC, copy)


def test_memory_is_used_again_once_nobody_holds_a_batch():
    samples = Samples(1000)
    chunks = [(0, np.arange(start, start + 10)) for start in range(0, 1000, 10)]
    places = set()
    for batch in batches(samples, chunks, ahead=3):
        places.add(batch.images_NHWC.ctypes.data)
    assert len(places) <= 6, "four in flight, the consumer's, and one more"
    for found, (epoch, positions) in zip(batches(samples, chunks, ahead=3), chunks, strict=True):
        pixels, _ = VIEWS.view(samples.decode(str(positions[7]).encode()), epoch=epoch, key=f"class/{positions[7]}")
        np.testing.assert_array_equal(found.images_NHWC[7], pixels)


@pytest.mark.parametrize(
    "hold",
    [
        lambda batch: batch,
        lambda batch: batch.images_NHWC[2:, 1, ::2],
        lambda batch: torch.from_numpy(batch.images_NHWC)[3],
        lambda batch: memoryview(batch.images_NHWC),
    ],
)
def test_whatever_lies_in_a_batch_keeps_it(hold):
    chunks = [(0, np.arange(start, start + 5)) for start in range(0, 60, 5)]
    copies, held = [], []
    for batch in batches(Samples(), chunks, ahead=2):
        held.append(hold(batch))
        copies.append(hold(batch._replace(images_NHWC=batch.images_NHWC.copy())))
        del batch
    for copy, kept in zip(copies, held, strict=True):
        pair = (copy.images_NHWC, kept.images_NHWC) if isinstance(copy, Batch) else (copy, kept)
        np.testing.assert_array_equal(*map(np.asarray, pair))


def test_batches_of_other_sizes_come_right():
    chunks = [(0, np.arange(size) % 60) for size in (1, 40, 3, 8, 9, 16, 17, 60, 2)]
    found = batches(Samples(), chunks, num_threads=3, ahead=1)
    for (epoch, positions), batch in zip(chunks, found, strict=True):
        assert batch.images_NHWC.shape == (len(positions), SIZE, SIZE, 3)
        for row, position in enumerate(positions):
            image = Samples().decode(str(position).encode())
            wanted = VIEWS.view(image, epoch=epoch, key=f"class/{position}")[0]
            np.testing.assert_array_equal(batch.images_NHWC[row], wanted)


def test_no_more_than_planned_is_in_flight():
    samples = Samples(1000)
    taken = []

    def chunks():
        for number in range(100):
            taken.append(number)
            yield 0, np.arange(5 * number, 5 * number + 5)

    running = batches(samples, chunks(), ahead=3)
    next(running)
    time.sleep(0.1)
    assert len(taken) == 4
    assert len(samples.started) <= 20
    for _ in range(10):
        next(running)
    assert len(taken) == 14
    running.close()


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_leaving_early_ends_the_threads_promptly(how):
    samples = Samples(1000, seconds=0.02)
    running = batches(samples, [(0, np.arange(start, start + 50)) for start in range(0, 1000, 50)], ahead=8)
    next(running)
    started, num_read = time.perf_counter(), len(samples.started)
    if how == "closed":
        running.close()
    del running
    assert time.perf_counter() - started < 1.0, "4 s would be what is in flight, 10 s everything"
    assert alive() == []
    assert len(samples.started) - num_read < 20, "what had not begun was dropped"


def test_a_broken_image_surfaces_at_its_place_and_ends_the_loader():
    samples = Samples(300, broken=150, seconds=0.001)
    running = batches(samples, [(0, np.arange(start, start + 50)) for start in range(0, 300, 50)], ahead=5)
    for _ in range(3):
        next(running)
    with pytest.raises(ValueError, match="image 150 is broken"):
        next(running)
    assert alive() == []


class Photographs(Samples):
    """JPEGs, decoded no further than needed."""

    def read(self, position: int) -> bytes:
        noise = np.random.default_rng(position).integers(0, 256, (30, 20, 3), np.uint8)
        return simplejpeg.encode_jpeg(np.repeat(np.repeat(noise, 4, 0), 4, 1), quality=90, colorspace="RGB")

    def decode(self, data: bytes, **options: object) -> np.ndarray:
        image = decode(data, backend="simplejpeg", max_pixels=10**6, **options).image_HWC
        self.shapes.append(image.shape)
        return image


def test_images_decoded_no_further_than_needed_give_the_views_of_whole_ones():
    samples = Photographs()
    samples.shapes = []
    chunks = [(0, np.arange(30)), (1, np.arange(30, 60)), (2, np.arange(12))]
    for (epoch, positions), batch in zip(chunks, batches(samples, chunks), strict=True):
        for row, position in enumerate(positions):
            whole = decode(samples.read(position), backend="simplejpeg", max_pixels=10**6).image_HWC
            pixels, shift = VIEWS.view(whole, epoch=epoch, key=f"class/{position}")
            np.testing.assert_array_equal(batch.images_NHWC[row], pixels)
            np.testing.assert_array_equal(batch.shifts[row], shift)
    assert sum(shape[0] < 120 for shape in samples.shapes) > 10
    assert {shape[1:] for shape in samples.shapes} == {(80, 3)}


def test_evaluation_takes_the_central_crop():
    samples = Samples()
    positions = np.array([3, 8, 11])
    [batch] = evaluation_batches(samples, [positions], image_size=6, resize_size=7, num_threads=2, ahead=1)
    for row, position in enumerate(positions):
        image = samples.decode(str(position).encode())
        np.testing.assert_array_equal(batch.images_NHWC[row], center_crop(resize_short(image, short_side=7), size=6))
    np.testing.assert_array_equal(batch.shifts, 0)
    np.testing.assert_array_equal(batch.labels, positions % 7)


def test_whole_images_come_resized_and_in_order():
    samples = Samples()
    chunks = [np.array([4, 2]), np.array([7])]
    found = list(resized_images(samples, chunks, resize_size=6, num_threads=3, ahead=2))
    assert [positions.tolist() for positions, _ in found] == [[4, 2], [7]]
    for positions, images in found:
        for position, image in zip(positions, images, strict=True):
            whole = samples.decode(str(position).encode())
            np.testing.assert_array_equal(image, resize_short(whole, short_side=6))
    running = resized_images(Samples(1000, seconds=0.01), [np.arange(500)] * 4, resize_size=6, num_threads=2, ahead=1)
    started = time.perf_counter()
    running.close()
    assert time.perf_counter() - started < 0.5
    assert alive() == []
