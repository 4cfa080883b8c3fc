"""What a reproduction showed: the verdict on two sets of hashes, with no file read and nothing run."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from scipy.stats import t

from rootstock.ops.dvc_lock import Record

# exact by design: noise excuses nothing
DATA_STAGES = ("fetch", "manifest", "stats", "shards")
# times and machines, so other bytes every time
ALWAYS_DIFFERS = Path("reports/runs")
LEVEL = 0.95
MIN_SEEDS = 3  # from two, Student's t is 12.7: a band that would excuse nearly everything


class Difference(NamedTuple):
    """An output that came out otherwise."""

    stage: str
    path: str
    recorded: str
    found: str | None  # None: it was not made


class Band(NamedTuple):
    """Where one more training's metric falls with 95 %, from the recorded seeds' values."""

    low: float
    high: float
    values: list[float]


class Outcome(NamedTuple):
    """A reproduction's verdict."""

    kind: Literal["identical", "within seed noise", "differs"]
    first: str | None  # the stage where it starts to differ
    differences: list[Difference]  # in the chain's order
    why: str

    @property
    def is_good(self) -> bool:
        """Whether the model is what it was, or one as good as any of its seeds."""
        return self.kind != "differs"

    @property
    def text(self) -> str:
        """The verdict in one line."""
        if self.kind == "identical":
            return "identical"
        return f"{self.kind} (first at {self.first})" if self.is_good else f"differs, first at {self.first}"


def compare(chain: Sequence[Record], rebuilt: dict[str, Record]) -> list[Difference]:
    """Return every output of the chain whose hash is not the recorded one, `reports/runs` left out.

    Args:
        chain: recorded, each stage after what it depends on.
        rebuilt: the reproduction's records by stage.
    """
    found = []
    for record in chain:
        outs = rebuilt[record.name].outs if record.name in rebuilt else {}
        for path, md5 in record.outs.items():
            if Path(path).parent != ALWAYS_DIFFERS and outs.get(path) != md5:
                found.append(Difference(record.name, path, md5, outs.get(path)))
    return found


def num_compared(chain: Sequence[Record]) -> int:
    """Return how many outputs `compare` compares."""
    return sum(Path(path).parent != ALWAYS_DIFFERS for record in chain for path in record.outs)


def band(values: Sequence[float]) -> Band | None:
    """Return the 95 % predictive interval of one more value; None from fewer than `MIN_SEEDS`.

    Source: Student's t with k − 1 degrees of freedom, mean ± t·sd·sqrt(1 + 1/k).
    """
    k = len(values)
    if k < MIN_SEEDS:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, k - 1)) * statistics.stdev(values) * (1 + 1 / k) ** 0.5
    mean = statistics.fmean(values)
    return Band(mean - half, mean + half, list(values))


def judge(differences: Sequence[Difference], *, metric: float | None, seeds: Band | None) -> Outcome:
    """Decide between identical, within seed noise, and differs.

    Args:
        differences: what `compare` returned.
        metric: the rebuilt model's, on the images that chose it; None where the chain ends before an evaluation.
        seeds: of the recorded metrics of the same strategy's seeds, this replica's own among them; None where they are
            too few.
    """
    differences = list(differences)
    if not differences:
        return Outcome("identical", None, [], "every output has the hash that dvc.lock recorded")
    first = differences[0].stage
    if first.partition("@")[0] in DATA_STAGES:
        return Outcome("differs", first, differences, "a data stage is exact by design: noise is no excuse")
    if metric is None:
        return Outcome("differs", first, differences, "the chain has no evaluation, so no metric to compare with noise")
    if seeds is None:
        why = f"fewer than {MIN_SEEDS} seeds of this strategy are recorded, so their noise is not known"
        return Outcome("differs", first, differences, why)
    where = (
        f"the metric {metric:.4f} is %s {seeds.low:.4f} to {seeds.high:.4f}, a band {seeds.high - seeds.low:.4f} wide"
    )
    where += f" where one more training falls with 95 %% (from {len(seeds.values)} recorded seeds: "
    where += f"{', '.join(f'{value:.4f}' for value in seeds.values)})"
    if seeds.low <= metric <= seeds.high:
        return Outcome("within seed noise", first, differences, where % "within")
    return Outcome("differs", first, differences, where % "outside")
