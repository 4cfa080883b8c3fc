"""report: put everything on one static page (library: rootstock.evaluation.report)."""

from rootstock import layout
from rootstock.config.finetune import Finetune
from rootstock.config.load import load_section
from rootstock.config.pretrain import Pretrain
from rootstock.config.replicas import Replicas
from rootstock.config.report import Report
from rootstock.evaluation.select import unexpected_folders
from rootstock.ops import report_page
from rootstock.ops.stage import stage
from rootstock.schema import selection
from rootstock.schema.contract import atomic


@stage
def main() -> None:
    """Write reports/report.html."""
    replicas = load_section(layout.PARAMS, Replicas, "replicas")
    listed = [(strategy, seed) for strategy in replicas.strategies for seed in replicas.seeds]
    unexpected_folders(layout.evaluate(*listed[0]).parent, [layout.replica(*names) for names in listed])

    chosen = selection.read(layout.SELECTION)["selected"]["strategy"]
    page = report_page.build(
        config=load_section(layout.PARAMS, Report, "report"),
        replicas=replicas,
        pretrain=load_section(layout.PARAMS, Pretrain, "pretrain"),
        augment=load_section(layout.PARAMS, Finetune, "finetune", chosen).training.augment,
    )
    with atomic(layout.REPORT) as temporary:
        temporary.write_text(page)
    print(f"wrote {layout.REPORT}")


if __name__ == "__main__":
    main()
