"""Which first-party modules a stage's result depends on: the import graph, against the `deps` of dvc.yaml."""

import ast
from collections.abc import Iterable
from pathlib import Path

from rootstock.config.load import edit_yaml

# Modules that watch a stage and cannot change its result; a change in them must not rerun ImageNet.
OBSERVERS = {
    "pipeline": "refuses a foreign interpreter, chooses how threads wait; computes nothing",
    "rootstock.ops.fingerprint": "hashes what went in; names the state's folder, which changes no byte of a result",
    "rootstock.ops.hardware": "describes the machine for reports/runs, which no result depends on",
    "rootstock.ops.journal": "keeps what the tracking store has not acknowledged",
    "rootstock.ops.locks": "waits or refuses; computes nothing",
    "rootstock.ops.runs": "writes reports/runs, which only the report reads",
    "rootstock.ops.stage": "turns errors into messages; computes nothing",
    "rootstock.ops.process": "tells whether a process lives; computes nothing",
    "rootstock.ops.store": "the door to MLflow; a failure there never changes training",
    "rootstock.ops.tracking": "logs to MLflow; a failure there never changes training",
    "rootstock.schema.run": "the contract of reports/runs, which only the report reads",
}


def first_party(root: Path) -> dict[str, Path]:
    """Return every module of the project: name -> file relative to `root`; packages with code only."""
    modules = {}
    for base, folder in (("src", "rootstock"), (".", "pipeline")):
        for path in sorted((root / base / folder).rglob("*.py")):
            relative = path.relative_to(root / base)
            parts = relative.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = path.relative_to(root)
    return modules


def imports(path: Path, *, module: str, modules: Iterable[str]) -> set[str]:
    """Return the first-party modules that a file imports anywhere, also inside functions and for type checks.

    `from package import name` counts as the module `package.name` where there is one, else as `package`.
    """
    known = set(modules)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the project imports by full names"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in known else node.module} & known
    return found - {module}


def closure(start: str, *, root: Path, observers: Iterable[str]) -> set[str]:
    """Return the modules that `start` reaches by imports, itself included; nothing is followed into an observer.

    Importing a module runs the packages around it, so these belong to it.
    """
    modules = first_party(root)
    seen: set[str] = set()
    pending = [start]
    while pending:
        module = pending.pop()
        if module in seen or module in observers:
            continue
        seen.add(module)
        pending.extend(imports(root / modules[module], module=module, modules=modules))
        package = module.rpartition(".")[0]
        if package in modules:
            pending.append(package)
    return seen


def wanted(stage: str, *, root: Path) -> list[str]:
    """Return the files of code that a stage must list as `deps`: its script first, then the library's modules.

    Package files without code are left out.
    """
    modules = first_party(root)
    script = f"pipeline.{stage}"
    reached = sorted(closure(script, root=root, observers=OBSERVERS) - {script})
    files = [modules[name] for name in [script, *reached]]
    return [file.as_posix() for file in files if file.name != "__init__.py" or _has_code(root / file)]


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_bytes()).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def write(dvc_yaml: Path, *, root: Path) -> list[str]:
    """Bring the code among the `deps` of dvc.yaml up to date; comments stay. Return the stages that changed."""
    changed = []
    with edit_yaml(dvc_yaml) as content:
        for stage, definition in content["stages"].items():
            deps = definition.get("do", definition)["deps"]
            data = [dep for dep in deps if not dep.endswith(".py")]
            updated = data + wanted(stage, root=root)
            if updated != list(deps):
                deps[:] = updated
                changed.append(stage)
    return changed
