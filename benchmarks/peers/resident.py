"""A contender's process: starts once, then measures a round each time it is told. Standard library only.

It runs in the peers' own environments too. Orders come as lines of JSON on standard input; answers go to what was
standard output, and what libraries print there goes to standard error instead.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def serve(make: Callable[[dict], tuple[dict, Callable[..., dict]]]) -> None:
    """Answer orders until standard input ends.

    Args:
        make: takes what the benchmark wrote on the command line, as JSON; returns what there is to say about the
            contender, and the function that measures one round.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    about, measure = make(json.loads(sys.argv[1]))
    print(json.dumps(about), file=answers)
    for line in sys.stdin:
        figures = measure(**json.loads(line))
        figures["max_rss_bytes"] = _max_rss_bytes()
        print(json.dumps(figures), file=answers)


def stream(batches: Iterator, *, images: Callable = lambda batch: batch) -> Callable[..., dict]:
    """Measure an endless stream of batches: some to warm up and to empty what was prefetched, then the timed ones.

    Args:
        images: picks the array of images, its first axis N, out of a batch.
    """

    def measure(warm_up: int, num_batches: int) -> dict:
        for _ in range(warm_up):
            last = next(batches)
        clock = Clock()
        num_images = 0
        for _ in range(num_batches):
            last = next(batches)
            num_images += len(images(last))
        figures = clock.read()
        array = images(last)
        shape = "×".join(map(str, array.shape))
        return {
            **figures,
            "num_images": num_images,
            "output": f"{str(array.dtype).removeprefix('torch.')} {shape}",
            "mean": float(array[:8].astype("f8").mean() if hasattr(array, "astype") else array[:8].double().mean()),
        }

    return measure


def job(work: Callable[[], dict]) -> Callable[..., dict]:
    """Measure a job that is done from beginning to end, its `num_images` among what it returns."""

    def measure() -> dict:
        clock = Clock()
        said = work()
        return {**clock.read(), **said}

    return measure


class Clock:
    """Wall and CPU seconds from here on, of this process and its descendants."""

    def __init__(self) -> None:
        self._cpu = _tree_cpu_seconds()
        self._wall = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return the seconds since the beginning."""
        wall = time.perf_counter() - self._wall
        return {"wall_seconds": wall, "cpu_seconds": _tree_cpu_seconds() - self._cpu}


def _max_rss_bytes() -> int:
    """Largest resident set of this program; getrusage's would be that of the process it was forked from."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def _tree_cpu_seconds() -> float:
    """User and system seconds of this process, its living descendants, and those that any of them has reaped."""
    parents, seconds = {}, {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the look
        parents[int(name)] = int(fields[1])
        seconds[int(name)] = sum(map(int, fields[11:15])) / CLOCK_TICKS
    return sum(seconds[pid] for pid in seconds if _descends(pid, parents))


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid and pid != os.getpid():
        pid = parents.get(pid, 0)
    return pid == os.getpid()
