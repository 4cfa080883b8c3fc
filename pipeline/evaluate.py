"""evaluate: predict every validation and test image with one replica (library: rootstock.evaluation)."""

import argparse

from rootstock import layout
from rootstock.config.evaluate import Evaluate
from rootstock.config.load import load_section
from rootstock.ops.evaluation_run import evaluate
from rootstock.ops.stage import stage


@stage
def main() -> None:
    """Write reports/evaluate/<strategy>-<seed>/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()

    evaluate(
        names=(args.strategy, args.seed),
        config=load_section(layout.PARAMS, Evaluate, "evaluate"),
        shards_folder=layout.shards(layout.TARGET),
        model=layout.finetune(args.strategy, args.seed),
        predictions_path=layout.predictions(args.strategy, args.seed),
        metrics_path=layout.metrics(args.strategy, args.seed),
    )


if __name__ == "__main__":
    main()
