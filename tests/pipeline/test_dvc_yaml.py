"""dvc.yaml lists what each stage imports, reads and writes, and agrees with layout.py."""

from pathlib import Path

import pytest

from rootstock import layout
from rootstock.config.compose import compose
from rootstock.config.load import read_yaml
from rootstock.ops.configuration import choice
from rootstock.ops.dependencies import OBSERVERS, closure, first_party, wanted

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = read_yaml(REPOSITORY / "dvc.yaml")["stages"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_deps_list_every_module_the_stage_imports(stage: str) -> None:
    listed = [dep for dep in definition(stage)["deps"] if dep.endswith(".py")]
    assert listed == wanted(stage, root=REPOSITORY), "run `make deps`"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_script_parameters_and_description_have_its_name(stage: str) -> None:
    assert definition(stage)["cmd"].startswith(f"python -m pipeline.{stage}")
    assert definition(stage)["desc"].endswith(".")
    assert "\n" not in definition(stage)["desc"]
    script = (REPOSITORY / "pipeline" / f"{stage}.py").read_text()
    assert script.startswith(f'"""{stage}: '), "the script's header begins with the stage's name"
    assert any(name.split(".")[0] == stage for name in definition(stage)["params"])


def outs(stage: str) -> set[str]:
    found = set()
    for kind in ("outs", "metrics", "plots"):
        for out in definition(stage).get(kind, []):
            found.add(out if isinstance(out, str) else next(iter(out)))
    return found


def filled(values: dict[str, str], stage: str) -> set[str]:
    result = set()
    for out in outs(stage):
        for name, value in values.items():
            out = out.replace(f"${{{name}}}", value)
        result.add(out)
    return result


@pytest.mark.parametrize("dataset", layout.DATASETS)
def test_outputs_of_the_data_stages_are_those_of_layout(dataset: str) -> None:
    item = {"item": dataset}
    assert filled(item, "fetch") == {str(layout.source(dataset))}
    assert filled(item, "manifest") == {
        str(path) for path in (layout.manifest(dataset), layout.rejects(dataset), layout.duplicates(dataset))
    }
    assert filled(item, "stats") == {str(layout.stats(dataset)), str(layout.stats_arrays(dataset))}
    assert filled(item, "shards") == {str(layout.shards(dataset))}


def test_outputs_of_training_and_evaluation_are_those_of_layout() -> None:
    item = {"item.strategy": "full", "item.seed": "3"}
    assert filled({}, "pretrain") == {
        str(path) for path in (layout.PRETRAIN, layout.run("pretrain"), layout.history("pretrain"))
    }
    assert filled(item, "finetune") == {
        str(layout.finetune("full", 3)),
        str(layout.run("finetune", "full", 3)),
        str(layout.history("finetune", "full", 3)),
    }
    assert filled(item, "evaluate") == {
        str(layout.predictions("full", 3)),
        str(layout.metrics("full", 3)),
        str(layout.run("evaluate", "full", 3)),
    }
    assert filled({}, "select") == {str(layout.SELECTION)}
    assert filled({}, "report") == {str(layout.REPORT)}


def test_params_yaml_is_the_composition_of_its_choice() -> None:
    # the default one as committed; another after `make repro DATA=mine`, which must not break a person's tests
    composed = compose(REPOSITORY / "conf", choice(REPOSITORY / "params.yaml"))
    assert read_yaml(REPOSITORY / "params.yaml") == composed, "run `make configure`"


def test_parameters_named_in_dvc_yaml_exist() -> None:
    params = read_yaml(REPOSITORY / "params.yaml")
    for stage in STAGES:
        for name in definition(stage)["params"]:
            value = params
            for part in name.replace("${item}", "source").replace("${item.strategy}", "full").split("."):
                assert part in value, f"{stage}: {name}"
                value = value[part]


def test_observers_exist_and_pretraining_does_not_depend_on_them() -> None:
    modules = first_party(REPOSITORY)
    assert set(OBSERVERS) <= set(modules)
    reached = closure("pipeline.pretrain", root=REPOSITORY, observers=OBSERVERS)
    assert not reached & set(OBSERVERS)
    # what judges predictions cannot make ImageNet stale
    assert "rootstock.schema.predictions" not in reached
    assert "rootstock.evaluation.metrics" not in reached
