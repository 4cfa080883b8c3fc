"""Work spread over processes, with results in the order of the work: any `concurrent.futures` executor will do.

Our own pool's workers are started by a fork server (a clean, single-threaded process: forking this one could copy a
lock that a thread of Arrow or OpenMP holds). They ignore Ctrl-C, which is the parent's to handle, and they end at once
when the parent stops early or is gone, however it went.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

VARIABLE = "ROOTSTOCK_WORKERS"


class WorkerError(RuntimeError):
    """A worker process ended without an answer, such as one killed for memory."""


def num_workers() -> int:
    """Return how many processes to use: `$ROOTSTOCK_WORKERS`, else the cores that this process may run on.

    Raises:
        ValueError: the variable is not a positive integer.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise ValueError(f"${VARIABLE}: found {given!r}, wanted a number of processes, 1 or more")
    return int(given)


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | Executor,
    ahead: int,
    preload: Sequence[str],
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in the items' order.

    Closing the generator (`contextlib.closing`) ends our own workers at once, in the middle of their work.

    Args:
        function: a module's own function, so that it can be sent to another process.
        items: taken one by one, never more than `ahead` beyond the result being yielded, so memory stays bounded.
        workers: a number of processes, 1 meaning this one; or an executor, which is left open.
        ahead: items in flight, >= 1.
        preload: names of modules that `function` needs and that are slow to import; our own workers share them.

    Raises:
        WorkerError: a worker process ended without an answer.
        BaseException: what `function` raised, at its item's place, with a note that says which item it was.
    """
    assert ahead >= 1, ahead
    if isinstance(workers, Executor):
        yield from _in_order(function, items, workers, ahead)
    elif workers == 1:
        for number, item in enumerate(items):
            with _named(number, item):
                result = function(item)
            yield result
    else:
        with _pool(workers, preload) as executor:
            yield from _in_order(function, items, executor, ahead)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], executor: Executor, ahead: int
) -> Iterator[Result]:
    waiting: deque[tuple[int, Item, Future]] = deque()
    try:
        for number, item in enumerate(items):
            with _dead_workers_named():  # a pool that broke meanwhile refuses already here
                future = executor.submit(function, item)
            waiting.append((number, item, future))
            if len(waiting) >= ahead:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        for _, _, future in waiting:
            future.cancel()


def _result(number: int, item: object, future: Future) -> object:
    with _named(number, item), _dead_workers_named():
        return future.result()


@contextmanager
def _dead_workers_named() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerError("a worker process ended without an answer; was it killed for memory?") from error


@contextmanager
def _named(number: int, item: object) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        text = repr(item)
        error.add_note(f"in item {number}: {text if len(text) <= 200 else text[:200] + ' …'}")
        raise


@contextmanager
def _pool(workers: int, preload: Sequence[str]) -> Iterator[Executor]:
    """Open a process pool; when its block fails or is left early, end the workers at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *preload])
    lifeline, held = context.Pipe(duplex=False)  # workers hold one end; it reads as closed once we close or are gone
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lifeline,))
    try:
        yield executor
    except BaseException:
        held.close()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        held.close()
        lifeline.close()


def _start_worker(lifeline: multiprocessing.connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the pool is the parallelism: threads within a worker would only compete for its core
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: multiprocessing.connection.Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([lifeline, parent.sentinel])
    os._exit(1)
