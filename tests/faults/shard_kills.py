"""Sharding jobs killed at any instant: nothing partial is visible, and the next job goes on to the same bytes.

    PYTHONPATH=tests:benchmarks python -m faults.shard_kills --number 50

Writes benchmarks/results/shard_kills.json.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from faults import shard_faults

from rootstock.data import shard_writer, shards
from rootstock.data.shards import verify_shards

NUM_SHARDS = 12  # about; the plan decides
MAX_WAIT_SECONDS = 0.02  # beyond the moment at which a drawn number of shards is whole: the time that one takes
CALLS = ("replace", "fsync")  # of os: just before each of them is the worst instant for a promise about files


def write(folder: Path, *, short_side: int | None, workers: int) -> None:
    """Run the job: shards of the planted collection, in `folder`/shards."""
    shards.write(
        folder / "manifest.parquet",
        locate=folder.joinpath,
        folder=folder / "shards",
        short_side=short_side,
        quality=90,
        max_shard_bytes=40_960 if short_side is None else 20_480,
        seed=3,
        workers=workers,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


def visible_wrongs(folder: Path, wanted: dict[str, bytes]) -> list[str]:
    """What a reader of the shards' folder could take for more than it is, after a kill."""
    found = contents(folder / "shards")
    wrongs = [f"{name} is not whole" for name, data in found.items() if wanted.get(name) != data]
    if "index.parquet" in found and set(found) != set(wanted):
        wrongs.append(f"an index beside {sorted(found)}")
    return wrongs


def num_whole(folder: Path) -> int:
    """How many shards the job under way has finished, in place or not."""
    return sum(len(list(folder.glob(pattern))) for pattern in (".shards.unfinished/*.tar", "shards/*.tar"))


def wait_for(folder: Path, number: int, has_ended: Callable[[], bool]) -> None:
    """Return when the job has begun and so many shards are whole, or when it has ended."""
    while not has_ended():
        if folder.joinpath(".shards.unfinished").exists() and num_whole(folder) >= number:
            return
        time.sleep(0.0005)


def in_child(job: Callable[[], None], *, wait: Callable[[Callable], None] | None, call: tuple[str, int] | None) -> bool:
    """Run a job in a forked child, killed after a wait or before the n-th call; tell whether it was killed."""
    child = os.fork()
    if child == 0:
        if call is not None:
            _kill_at(*call)
        job()
        os._exit(0)
    if wait is not None:
        wait(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def _kill_at(name: str, number: int) -> None:
    original, left = getattr(os, name), [number]

    def counted(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, counted)


def in_process(folder: Path, *, short_side: int | None, wait: Callable[[Callable], None]) -> bool:
    """Run the job with two workers in a process that is killed; its workers end by themselves."""
    command = [sys.executable, "-m", "faults.shard_kills", "--job", str(folder), "--short-side", str(short_side or 0)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    wait(lambda: process.poll() is not None)
    process.kill()
    killed = process.wait() != 0
    time.sleep(0.5)  # its workers notice and end
    return killed


def trial(folder: Path, number: int, *, wanted: dict[str, bytes], mode: str) -> dict:
    """Kill a job one to three times, look at what is visible after each kill, let the next one finish."""
    chance = random.Random(number)
    short_side = 20 if number % 2 else None
    wrongs, num_kills, num_at_kill = [], 0, []
    for _ in range(1 + number // 10 % 3):

        def wait(has_ended: Callable[[], bool]) -> None:  # used up within this turn
            wait_for(folder, chance.randrange(NUM_SHARDS + 2), has_ended)
            time.sleep(chance.uniform(0, MAX_WAIT_SECONDS))

        if mode == "process":
            killed = in_process(folder, short_side=short_side, wait=wait)
        else:
            killed = in_child(
                lambda: write(folder, short_side=short_side, workers=1),
                wait=None if mode == "call" else wait,
                call=(chance.choice(CALLS), chance.randrange(2 * NUM_SHARDS)) if mode == "call" else None,
            )
        num_kills += killed
        num_at_kill += [num_whole(folder)] if killed else []
        wrongs += visible_wrongs(folder, wanted)
    num_kept = _finish(folder, short_side)
    found = contents(folder / "shards")
    if found != wanted:
        wrongs.append(f"other bytes at the end: {[name for name in wanted if found.get(name) != wanted[name]]}")
    if folder.joinpath(".shards.unfinished").exists():
        wrongs.append("the folder of unfinished work is still there")
    wrongs += verify_shards(folder / "shards")
    return {
        "number": number,
        "mode": mode,
        "num_shards": sum(name.endswith(".tar") for name in wanted),
        "num_kills": num_kills,
        "num_whole_at_kills": num_at_kill,
        "num_kept": num_kept,
        "wrongs": wrongs,
    }


def _finish(folder: Path, short_side: int | None) -> int:
    """Let a last job run to its end; return how many shards it took over from the killed ones."""
    num_written = []
    original = shard_writer._write
    shard_writer._write = lambda task: num_written.append(task) or original(task)
    try:
        write(folder, short_side=short_side, workers=1)
    finally:
        shard_writer._write = original
    return len(list(folder.glob("shards/*.tar"))) - len(num_written)


def run(root: Path, *, number: int, modes: list[str]) -> list[dict]:
    """Run trials, each mode in turn, raw and shrunk images in turn."""
    import torch  # warm, so that forked children begin with the work

    torch.set_num_threads(1)
    wanted = {}
    for short_side in (None, 20):
        folder = root / f"whole-{short_side}"
        folder.mkdir()
        shard_faults.plant(folder, seed=1)
        (folder / "shards").rename(folder / "other")  # of another plan
        write(folder, short_side=short_side, workers=1)
        wanted[short_side] = contents(folder / "shards")
    found = []
    for place in range(number):
        folder = root / f"trial-{place}"
        folder.mkdir()
        for name in ("images.bin", "manifest.parquet"):
            os.link(root / "whole-None" / name, folder / name)
        mode = modes[place // 2 % len(modes)]
        found.append(trial(folder, place, wanted=wanted[20 if place % 2 else None], mode=mode))
    return found


def main() -> None:
    """Run the trials, print and write the figures; exit 1 when one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int)
    parser.add_argument("--job", type=Path, help="run a job here (what this script does in its child processes)")
    parser.add_argument("--short-side", type=int)
    arguments = parser.parse_args()
    if arguments.job:
        write(arguments.job, short_side=arguments.short_side or None, workers=2)
        return
    import record  # here only: benchmarks/ is on the path of the long run alone

    with tempfile.TemporaryDirectory() as folder:
        trials = run(Path(folder), number=arguments.number, modes=["time", "call", "process", "call", "time"])
    totals = {
        "trials": len(trials),
        "kills": sum(one["num_kills"] for one in trials),
        "trials_with_shards_kept": sum(one["num_kept"] > 0 for one in trials),
        "shards_kept": sum(one["num_kept"] for one in trials),
        "wrongs": sum(len(one["wrongs"]) for one in trials),
    }
    for one in trials:
        print(one)
    print(totals)
    print(f"wrote {record.write('shard_kills', {'totals': totals, 'trials': trials})}")
    sys.exit(totals["wrongs"] > 0)


if __name__ == "__main__":
    main()
