"""Faults on a real pipeline: kills, two at once, concurrent experiments.

`make faults` runs it, about an hour on two idle cores. It writes benchmarks/results/faults.json, and ends with 1 when
one trial is not as it should be.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import record
from faults import kills, sweep, together
from faults.trial import TRAINING

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run all parts, print the figures, write them."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where projects are made and logs stay")
    parser.add_argument("--kills", type=int, default=20, help="in each of the three modes (20)")
    parser.add_argument("--jobs", type=int, default=2, help="kill trials side by side (2)")
    parser.add_argument("--experiments", type=int, default=8, help="of the eight queued ones, side by side (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (0)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    bases = kills.prepare(repository=REPOSITORY, folder=args.folder, jobs=args.jobs)
    killed = kills.measure(bases, folder=args.folder, num_each=args.kills, jobs=args.jobs, seed=args.seed)
    base = bases[TRAINING]
    both = together.measure(base=base.folder, folder=args.folder, wanted=base.wanted)
    swept = sweep.measure(repository=REPOSITORY, folder=args.folder, jobs=args.experiments)
    figures = {"kills": kills.verdict(killed), "kill_trials": killed, "two_at_once": both, "experiments": swept}
    print(json.dumps({"kills": figures["kills"], "experiments": swept}, indent=1))
    print(f"wrote {record.write('faults', figures)}")
    sys.exit(any(one["problems"] for one in [*killed["trials"], *itertools.chain(*both.values()), swept]))


if __name__ == "__main__":
    main()
