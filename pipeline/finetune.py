"""finetune: train a classifier on the target collection (library: rootstock.training.transfer and .loop)."""

import argparse
from functools import partial

from rootstock import distributed, layout
from rootstock.config.finetune import Finetune
from rootstock.config.load import load_section
from rootstock.data.shard_set import ShardSet
from rootstock.models import bundle
from rootstock.ops.preprocessing import normalisation
from rootstock.ops.stage import stage
from rootstock.ops.training_run import Job, train
from rootstock.training import transfer


@stage
def main() -> None:
    """Write models/finetune/<strategy>-<seed>/ and its history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    distributed.launch_processes()

    params = load_section(layout.PARAMS, Finetune, "finetune", args.strategy)
    pretrained = bundle.read_facts(layout.PRETRAIN)
    image_size = pretrained["image_size"]
    shards = ShardSet(layout.shards(layout.TARGET), verify="always")
    job = Job(
        stage="finetune",
        names=(args.strategy, args.seed),
        params=params,
        training=params.training,
        seed=args.seed,
        inputs=[*layout.training_inputs(layout.TARGET), layout.PRETRAIN],
        dataset=layout.TARGET,
        shards=shards,
        splits=params.splits,
        image_size=image_size,
        resize_size=pretrained["resize_size"],
        out=layout.finetune(args.strategy, args.seed),
    )
    normalise = None
    if params.preprocess is not None:
        size = {name: pretrained[name] for name in ("image_size", "resize_size")}
        normalise = normalisation(layout.TARGET, shards, kind=params.preprocess, **size)
    make = partial(
        transfer.start,
        params.start,
        pretrained=layout.PRETRAIN,
        num_classes=len(shards.class_names),
        normalise=normalise,
        seed=args.seed,
    )
    train(job, make=make, set_train_mode=partial(transfer.set_train_mode, strategy=params.start))


if __name__ == "__main__":
    main()
