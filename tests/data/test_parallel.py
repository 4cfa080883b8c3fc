"""Results come in order, memory is bounded, errors name their item, and no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rootstock.data.parallel import WorkerError, num_workers, ordered_map


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # so that results become ready out of order
    return number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven is refused")
    return number


def die(number: int) -> int:
    if number == 2:
        os._exit(3)
    return number


class Counted:
    """Items that count how many of them were taken."""

    def __init__(self, size: int):
        self.size, self.taken = size, 0

    def __iter__(self):
        for number in range(self.size):
            self.taken += 1
            yield number


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("ahead", [1, 5, 100])
def test_results_come_in_order(workers, ahead):
    found = list(ordered_map(square, range(20), workers=workers, ahead=ahead, preload=()))
    assert found == [number * number for number in range(20)]


def test_any_executor_will_do_and_stays_open():
    with ThreadPoolExecutor(3) as pool:
        assert list(ordered_map(square, range(9), workers=pool, ahead=4, preload=())) == [n * n for n in range(9)]
        assert pool.submit(square, 3).result() == 9


def test_nothing_to_do():
    assert list(ordered_map(square, [], workers=2, ahead=3, preload=())) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_than_ahead_items_are_in_flight(workers):
    items = Counted(40)
    for num_results, _ in enumerate(ordered_map(square, items, workers=workers, ahead=4, preload=()), start=1):
        assert items.taken <= num_results + 3  # ahead counts the one whose result is yielded


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_at_its_place_and_names_its_item(workers):
    results = ordered_map(refuse_seven, range(30), workers=workers, ahead=6, preload=())
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven is refused") as caught:
        next(results)
    assert "in item 7: 7" in caught.value.__notes__


def test_a_dead_worker_is_an_error():
    with pytest.raises(WorkerError, match="killed for memory"):
        list(ordered_map(die, range(9), workers=2, ahead=4, preload=()))


def test_a_pool_that_broke_before_the_next_item_is_the_same_error():
    def items():
        yield 0
        time.sleep(3)  # the worker is dead by now, and the pool knows
        yield from range(1, 9)

    with pytest.raises(WorkerError, match="killed for memory"):
        list(ordered_map(die, items(), workers=2, ahead=4, preload=()))


def test_leaving_early_ends_the_workers_at_once():
    results = ordered_map(time.sleep, [0.0, 30.0, 30.0, 30.0], workers=2, ahead=3, preload=())
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(("value", "wanted"), [("1", 1), ("12", 12)])
def test_workers_come_from_the_environment(monkeypatch, value, wanted):
    monkeypatch.setenv("ROOTSTOCK_WORKERS", value)
    assert num_workers() == wanted


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²"])
def test_a_wrong_number_of_workers_is_an_error(monkeypatch, value):
    monkeypatch.setenv("ROOTSTOCK_WORKERS", value)
    with pytest.raises(ValueError, match=r"ROOTSTOCK_WORKERS: found .*, wanted a number of processes"):
        num_workers()


def test_without_the_variable_workers_are_the_cores(monkeypatch):
    monkeypatch.delenv("ROOTSTOCK_WORKERS", raising=False)
    assert num_workers() == len(os.sched_getaffinity(0))


SCRIPT = """
import os, time
from pathlib import Path
from rootstock.data.parallel import ordered_map

def stay(name):
    Path(name).write_text(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    list(ordered_map(stay, ["first", "second"], workers=2, ahead=2, preload=()))
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path, kill):
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        workers = [_pid(tmp_path / name) for name in ("first", "second")]
        start = time.monotonic()
        if kill == signal.SIGINT:
            os.killpg(parent.pid, kill)  # as the terminal does for Ctrl-C
        else:
            parent.send_signal(kill)
        errors = parent.communicate(timeout=20)[1]
        assert parent.returncode != 0
        while any(map(psutil.pid_exists, workers)):
            assert time.monotonic() - start < 10, "a worker outlived its parent"
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    if kill == signal.SIGINT:
        assert errors.count("Traceback") == 1, errors  # the parent's own, none of the workers'


def _pid(path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())
