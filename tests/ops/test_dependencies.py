"""The import graph of a toy project is known; in the real one, what only watches or judges leaves training alone."""

import shutil
from pathlib import Path

import pytest

from rootstock.config.load import read_yaml
from rootstock.ops.dependencies import OBSERVERS, closure, first_party, imports, wanted, write

TOY = {
    "pipeline/__init__.py": '"""Scripts."""\n',
    "pipeline/cook.py": "import rootstock.a.one\nfrom rootstock import rng\n",
    "pipeline/wash.py": "from rootstock.b import helper\n",
    "src/rootstock/__init__.py": '"""Only words."""\n',
    "src/rootstock/rng.py": "import os\n",
    "src/rootstock/a/__init__.py": "",
    "src/rootstock/a/one.py": "def f():\n    from rootstock.a.two import thing  # late\n",
    "src/rootstock/a/two.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rootstock.a import three\n"
        "from rootstock.a import one\n"
    ),
    "src/rootstock/a/three.py": "from rootstock.watch import look\n",
    "src/rootstock/a/unused.py": "",
    "src/rootstock/b/__init__.py": "helper = 1\n",
    "src/rootstock/watch.py": "from rootstock.a import unused\n",
}
DVC_YAML = """\
# the head
stages:
  cook:
    cmd: python -m pipeline.cook # kept
    deps:
      - data/raw
      - src/rootstock/gone.py
  wash:
    foreach: [a, b]
    do:
      cmd: python -m pipeline.wash
      deps:
        - pipeline/wash.py
        - src/rootstock/b/__init__.py
"""


@pytest.fixture
def toy(tmp_path) -> Path:
    for name, text in TOY.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    return tmp_path


def test_modules_are_found_by_their_names(toy):
    modules = first_party(toy)
    assert modules["rootstock.a"] == Path("src/rootstock/a/__init__.py")
    assert modules["rootstock.a.one"] == Path("src/rootstock/a/one.py")
    assert modules["pipeline.cook"] == Path("pipeline/cook.py")
    assert len(modules) == len(TOY)


def test_late_imports_and_those_for_types_count(toy):
    modules = first_party(toy)
    found = imports(toy / modules["rootstock.a.one"], module="rootstock.a.one", modules=modules)
    assert found == {"rootstock.a.two"}
    found = imports(toy / modules["rootstock.a.two"], module="rootstock.a.two", modules=modules)
    assert found == {"rootstock.a.three", "rootstock.a.one"}


def test_the_closure_ends_in_spite_of_cycles_and_stops_at_observers(toy):
    reached = closure("pipeline.cook", root=toy, observers=["rootstock.watch"])
    names = {"pipeline.cook", "rootstock.rng", "rootstock.a.one", "rootstock.a.two", "rootstock.a.three"}
    assert reached == names | {"pipeline", "rootstock", "rootstock.a"}
    assert "rootstock.a.unused" in closure("pipeline.cook", root=toy, observers=[])


def test_packages_count_where_they_hold_code(toy):
    assert wanted("wash", root=toy) == ["pipeline/wash.py", "src/rootstock/b/__init__.py"]
    (toy / "src/rootstock/a/__init__.py").write_text('"""Words."""\nLIMIT = 3\n')
    assert "src/rootstock/a/__init__.py" in wanted("cook", root=toy), "importing a module runs its package"


def test_dvc_yaml_is_brought_up_to_date_once_and_keeps_its_comments(toy):
    assert write(toy / "dvc.yaml", root=toy) == ["cook"]
    text = (toy / "dvc.yaml").read_text()
    assert text.startswith("# the head\n")
    assert "# kept" in text
    stages = read_yaml(toy / "dvc.yaml")["stages"]
    assert stages["cook"]["deps"][:2] == ["data/raw", "pipeline/cook.py"]
    assert "src/rootstock/gone.py" not in stages["cook"]["deps"]
    assert write(toy / "dvc.yaml", root=toy) == []
    assert (toy / "dvc.yaml").read_text() == text


def test_relative_imports_are_refused(toy):
    (toy / "src/rootstock/a/one.py").write_text("from . import two\n")
    with pytest.raises(AssertionError, match=r"one\.py: relative import"):
        wanted("cook", root=toy)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_what_only_watches_reruns_nothing(repository, observer):
    file = first_party(repository)[observer].as_posix()
    for script in sorted((repository / "pipeline").glob("[a-z]*.py")):
        if script.stem != "report":
            assert file not in wanted(script.stem, root=repository), script.stem


@pytest.mark.parametrize(
    ("file", "untouched", "touched"),
    [
        (
            "src/rootstock/schema/predictions.py",
            ["fetch", "manifest", "stats", "shards", "pretrain", "finetune"],
            "evaluate",
        ),
        ("src/rootstock/evaluation/metrics.py", ["pretrain", "finetune"], "evaluate"),
        ("src/rootstock/training/loop.py", ["fetch", "manifest", "stats", "shards", "evaluate", "select"], "pretrain"),
        ("src/rootstock/data/augment.py", ["fetch", "manifest", "stats", "shards"], "pretrain"),
        ("src/rootstock/config/finetune.py", ["fetch", "manifest", "stats", "shards", "pretrain"], "finetune"),
        ("src/rootstock/data/sources/demo.py", ["pretrain", "finetune", "evaluate"], "fetch"),
    ],
)
def test_a_change_reruns_what_it_can_change_and_no_more(repository, file, untouched, touched):
    for stage in untouched:
        assert file not in wanted(stage, root=repository), stage
    assert file in wanted(touched, root=repository)


def test_a_new_import_is_noticed(repository, tmp_path):
    """The test of dvc.yaml can fail: an import added to a module changes what its stages must list."""
    for folder in ("src", "pipeline"):
        shutil.copytree(repository / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = wanted("pretrain", root=tmp_path)
    path = tmp_path / "src/rootstock/training/loop.py"
    path.write_text(path.read_text() + "\n\ndef late() -> None:\n    import rootstock.evaluation.metrics\n")
    assert set(wanted("pretrain", root=tmp_path)) - set(before) >= {"src/rootstock/evaluation/metrics.py"}
