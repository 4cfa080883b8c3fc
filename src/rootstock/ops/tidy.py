"""Remove what dropped replicas left behind: DVC forgets a replica that the parameters no longer name, not its files."""

import shutil
from pathlib import Path

from rootstock import layout
from rootstock.config.load import load_section
from rootstock.config.replicas import Replicas


def leftovers() -> list[Path]:
    """Return folders and files of replicas that `replicas` in params.yaml does not name, sorted."""
    replicas = load_section(layout.PARAMS, Replicas, "replicas")
    named = [(strategy, seed) for strategy in replicas.strategies for seed in replicas.seeds]
    wanted = {make(*name) for name in named for make in (layout.finetune, layout.evaluate)}
    wanted |= {layout.history("finetune", *name) for name in named}
    wanted |= {layout.run(stage, *name) for name in named for stage in ("finetune", "evaluate")}
    found = [path for make in (layout.finetune, layout.evaluate) for path in _folders(make(*named[0]).parent)]
    found += layout.history("finetune").parent.glob("finetune-*.csv")
    for stage in ("finetune", "evaluate"):
        found += layout.run(stage).parent.glob(f"{stage}-*.json")
    return sorted(path for path in found if path not in wanted)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; what a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
