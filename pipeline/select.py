"""select: choose the best replica by validation (library: rootstock.evaluation.select)."""

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.replicas import Replicas
from rootstock.config.select import Select
from rootstock.evaluation.select import choose, unexpected_folders
from rootstock.ops.stage import stage
from rootstock.schema import metrics, selection


@stage
def main() -> None:
    """Write reports/select/challenger.json."""
    config = load_section(layout.PARAMS, Select, "select")
    replicas = load_section(layout.PARAMS, Replicas, "replicas")
    listed = [(strategy, seed) for strategy in replicas.strategies for seed in replicas.seeds]
    unexpected_folders(layout.evaluate(*listed[0]).parent, [layout.replica(*names) for names in listed])

    candidates = [
        {"strategy": strategy, "seed": seed, "metrics": metrics.read(layout.metrics(strategy, seed))}
        for strategy, seed in listed
    ]
    selection.write(layout.SELECTION, choose(candidates, view=config.view, metric=config.metric))


if __name__ == "__main__":
    main()
