"""Imports point downward only, and each dependency has one door."""

import ast
from pathlib import Path

import pytest

from rootstock.ops.dependencies import first_party, imports

REPOSITORY = Path(__file__).resolve().parents[2]
# from the top of the house to its foundation
LAYERS = [
    ("pipeline", "rootstock.cli"),
    ("rootstock.ops",),
    ("rootstock.training",),
    ("rootstock.evaluation",),
    ("rootstock.models",),
    ("rootstock.data",),
    ("rootstock.config", "rootstock.schema", "rootstock.rng", "rootstock.layout", "rootstock.distributed", "rootstock"),
]
DOORS = {
    "mlflow": "src/rootstock/ops/",
    "albumentations": "src/rootstock/data/augment.py",
    "webdataset": "src/rootstock/data/shards.py",
    "pandera": "src/rootstock/schema/",
    "ruamel": "src/rootstock/config/",
    "yaml": "src/rootstock/config/",
    "hydra": "src/rootstock/config/",
}
MODULES = first_party(REPOSITORY)


def layer(module: str) -> int:
    for number, rooms in enumerate(LAYERS):
        if any(module == room or module.startswith(f"{room}.") for room in rooms if room != "rootstock"):
            return number
    assert module == "rootstock", f"{module} is in no layer"
    return len(LAYERS) - 1


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module: str) -> None:
    for imported in imports(REPOSITORY / MODULES[module], module=module, modules=MODULES):
        assert layer(imported) >= layer(module), f"{module} imports {imported}, which lies above it"


def top_level_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("module", MODULES)
def test_each_dependency_has_one_door(module: str) -> None:
    file = MODULES[module].as_posix()
    for package, door in DOORS.items():
        if package in top_level_imports(REPOSITORY / file):
            assert file.startswith(door), f"{file} imports {package}; only {door} may"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("rootstock.")])
def test_only_ops_and_the_command_line_know_paths(module: str) -> None:
    if "rootstock.layout" in imports(REPOSITORY / MODULES[module], module=module, modules=MODULES):
        assert module == "rootstock.cli" or module.startswith("rootstock.ops."), f"{module} knows where files live"


@pytest.mark.parametrize("stage", [name for name in MODULES if name.startswith("pipeline.")])
def test_stage_scripts_are_thin(stage: str) -> None:
    lines = (REPOSITORY / MODULES[stage]).read_text().splitlines()
    assert len(lines) <= 60, f"{stage} has {len(lines)} lines: move what decides into the library"
