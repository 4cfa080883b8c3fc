"""pretrain: train the backbone on the source collection (library: rootstock.training.loop)."""

from rootstock import distributed, layout
from rootstock.config.load import load_section
from rootstock.config.pretrain import Pretrain
from rootstock.data.shard_set import ShardSet
from rootstock.models.build import build
from rootstock.models.classifier import Classifier
from rootstock.ops.preprocessing import normalisation
from rootstock.ops.stage import stage
from rootstock.ops.training_run import Job, train


@stage
def main() -> None:
    """Write models/pretrain/ and its history; `$ROOTSTOCK_PROCESSES` starts as many under torchrun."""
    distributed.launch_processes()
    params = load_section(layout.PARAMS, Pretrain, "pretrain")
    shards = ShardSet(layout.shards(layout.SOURCE), verify="always")

    def make() -> Classifier:
        network = build(
            params.arch, image_size=params.image_size, num_classes=len(shards.class_names), seed=params.seed
        )
        normalise = normalisation(
            layout.SOURCE,
            shards,
            kind=params.preprocess,
            image_size=params.image_size,
            resize_size=params.resize_size,
        )
        return Classifier(normalise, network)

    job = Job(
        stage="pretrain",
        names=(),
        params=params,
        training=params.training,
        seed=params.seed,
        inputs=layout.training_inputs(layout.SOURCE),
        dataset=layout.SOURCE,
        shards=shards,
        splits=["train"],
        image_size=params.image_size,
        resize_size=params.resize_size,
        out=layout.PRETRAIN,
    )
    train(job, make=make, set_train_mode=Classifier.train)


if __name__ == "__main__":
    main()
