"""Contenders measured in interleaved rounds: each round all of them, in a new order, on the same cores.

A contender is a process of its own that stays; between its turns it is frozen (SIGSTOP), so that nothing of it
prefetches into another's turn. Ratios are taken within a round, where both saw the same machine; the table shows their
median and the 90 % interval of that median by order statistics: it assumes no distribution, and covers 90 % at least.
"""

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import memory  # beside this script
import record

PEERS = record.ROOT / "benchmarks/peers"
ENVIRONMENTS = record.ROOT / ".bench"
LEVEL = 0.9
START_SECONDS = 300


@dataclass(frozen=True)
class Contender:
    """Who is measured: a script of `peers/` with what it is told."""

    name: str
    script: str
    spec: dict
    num_cores: int
    peer: str | None = None  # the environment under .bench; None is our own .venv


@dataclass
class Result:
    """What one contender showed."""

    contender: Contender
    about: dict
    rounds: list[dict] = field(default_factory=list)
    tree_bytes: int = 0

    def rates(self) -> list[float]:
        """Images a second, for each round."""
        return [turn["num_images"] / turn["wall_seconds"] for turn in self.rounds]

    def cpu_rates(self) -> list[float]:
        """Images a CPU second, for each round."""
        return [turn["num_images"] / max(turn["cpu_seconds"], 0.01) for turn in self.rounds]


class SkippedError(Exception):
    """A contender that is not here; the message says why."""


class Resident:
    """A contender's process."""

    def __init__(self, contender: Contender):
        """Start it and wait until it is ready.

        Raises:
            SkippedError: its environment is not there, or it failed to start.
        """
        python = interpreter(contender.peer)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        cores = sorted(os.sched_getaffinity(0))[: contender.num_cores]
        self._process = subprocess.Popen(
            [
                *("taskset", "--cpu-list", ",".join(map(str, cores))),
                *(python, PEERS / contender.script, json.dumps(contender.spec | {"num_cores": contender.num_cores})),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"},
        )
        self.about = self._answer()

    def measure(self, order: dict) -> dict:
        """Let it run one round, and freeze it again."""
        self._signal(signal.SIGCONT)
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._answer()
        self.freeze()
        return answer

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def freeze(self) -> None:
        """Stop it and all its children."""
        self._signal(signal.SIGSTOP)

    def tree_bytes(self) -> int:
        """Return the proportional set size of it and its children."""
        return memory.tree_bytes(self._process.pid)

    def close(self) -> None:
        """End it and all its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._said.close()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        last = self._said.read().strip().splitlines()[-1:]
        raise SkippedError(f"ended with {self._process.returncode}: {' '.join(last)[:300]}")


def interpreter(peer: str | None) -> Path:
    """Return the Python of a peer's environment.

    Raises:
        SkippedError: it was not installed, or its installation failed.
    """
    if peer is None:
        return Path(sys.executable)
    folder = ENVIRONMENTS / peer
    if not (folder / "installed.txt").exists():
        failed = ENVIRONMENTS / f"{peer}.failed.txt"
        raise SkippedError(failed.read_text().strip() if failed.exists() else "not installed: run `make bench-peers`")
    return folder / "bin/python"


def run(contenders: list[Contender], *, order: dict, num_rounds: int) -> tuple[dict[str, Result], dict[str, str]]:
    """Measure contenders in interleaved rounds.

    Args:
        order: what each is told each round.

    Returns:
        Results and, for each contender that could not be measured, the reason, both by name.

    Raises:
        SkippedError: one of our own failed: that is a fault, and nothing to leave out.
    """
    residents: dict[str, Resident] = {}
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    try:
        for contender in contenders:
            try:
                residents[contender.name] = Resident(contender)
                residents[contender.name].measure(order)  # to warm up: caches, compilation, first batches
            except SkippedError as reason:
                if contender.script.startswith("rootstock"):
                    raise
                residents.pop(contender.name, None)
                skipped[contender.name] = str(reason)
                continue
            results[contender.name] = Result(contender, residents[contender.name].about)
        for number in range(num_rounds):
            names = list(results)
            random.Random(number).shuffle(names)
            for name in names:
                results[name].rounds.append(residents[name].measure(order))
            print(f"\rround {number + 1} of {num_rounds}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for name, result in results.items():
            result.tree_bytes = residents[name].tree_bytes()
    finally:
        for resident in residents.values():
            resident.close()
    return results, skipped


def ratios(result: Result, base: Result, *, cpu: bool = False) -> list[float]:
    """Return the ratio of rates, for each round."""
    above, below = (result.cpu_rates(), base.cpu_rates()) if cpu else (result.rates(), base.rates())
    return [one / other for one, other in zip(above, below, strict=True)]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the narrowest symmetric order-statistic interval that covers the median at `LEVEL`; else all values."""
    ordered, n = sorted(values), len(values)
    for low in reversed(range((n + 1) // 2)):
        outside = 2 * sum(math.comb(n, k) for k in range(low + 1)) / 2**n
        if 1 - outside >= LEVEL:
            return ordered[low], ordered[n - 1 - low]
    return ordered[0], ordered[-1]


def figure(values: list[float]) -> dict[str, float]:
    """Return median and interval of values, with their number."""
    low, high = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "num_rounds": len(values)}


def show(title: str, results: dict[str, Result], skipped: dict[str, str], *, base: str) -> list[dict]:
    """Print the table of ratios to `base`; returns its rows for the results file."""
    print(f"\n### {title}\n")
    print("| contender | images/s | a core | images/CPU-s | ratio (90 %) | output | tree MB | how |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name, result in results.items():
        ratio = figure(ratios(result, results[base]))
        rate, cpu_rate = statistics.median(result.rates()), statistics.median(result.cpu_rates())
        last = result.rounds[-1]
        rows.append(
            {
                "contender": name,
                "images_per_second": rate,
                "images_per_cpu_second": cpu_rate,
                "ratio": ratio,
                "rates": result.rates(),
                "num_images_a_round": last["num_images"],
                "num_cores": result.contender.num_cores,
                "output": last.get("output"),
                "tree_bytes": result.tree_bytes,
                "max_rss_bytes": max(turn["max_rss_bytes"] for turn in result.rounds),
                **result.about,
            }
        )
        print(
            f"| {name} | {rate:.0f} | {rate / result.contender.num_cores:.0f} | {cpu_rate:.0f} "
            f"| {ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f}) | {last.get('output', '')} "
            f"| {result.tree_bytes / 1e6:.0f} | {result.about['how']} |"
        )
    for name, reason in skipped.items():
        rows.append({"contender": name, "skipped": reason})
        print(f"| {name} | skipped | | | | | | {reason} |")
    return rows


def judge(bars: list[tuple[str, str, str, float]], results: dict[str, Result], *, factor: float = 1.0) -> list[dict]:
    """Compare with the bars (what, contender, base, wanted): the interval's lower end counts.

    Args:
        factor: multiplies each ratio.
    """
    rows = []
    for what, name, base, wanted in bars:
        if name not in results or base not in results:
            absent = name if name not in results else base
            rows.append({"figure": what, "wanted": wanted, "met": None, "reason": f"{absent} was not measured"})
            print(f"    ?  {what}: {absent} was not measured")
            continue
        found = figure([ratio * factor for ratio in ratios(results[name], results[base])])
        met = found["low"] >= wanted
        rows.append({"figure": what, "contender": name, "base": base, "wanted": wanted, "found": found, "met": met})
        print(
            f"  {'met' if met else 'MISSED'}  {what}: {found['median']:.3f} ({found['low']:.3f}–{found['high']:.3f}), "
            f"wanted >= {wanted}"
        )
    return rows
