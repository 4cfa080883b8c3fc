"""Experiments keep the choice and stay apart from the workspace; many at once in one store lose nothing."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.config.section import ParamsError
from rootstock.ops import experiment

NUM_EXPERIMENTS = 8
NUM_STEPS, KEYS = 150, ("train_loss", "val_loss", "val_top1")
CHILD = """
import sys, time
from pathlib import Path
from rootstock.ops import tracking
project, number = Path(sys.argv[1]), int(sys.argv[2])
curve = project / f"curve-{number}.csv"
curve.write_text("epoch")
print("ready", flush=True)
sys.stdin.read()
tracking.LEAVE_SECONDS = 300.0
with tracking.start("finetune", names=("full", number), params={"optim": {"lr": number / 10}},
                    inputs={"data/shards/target": f"{number:032x}.dir"}, facts={"hardware": {"cpu": "fast"}},
                    tags={"collection": "demo"}, state=project / f"state-{number}", store=project) as run:
    for step in range(STEPS):
        run.log([tracking.Point(key, step + number / 10, step, 1000 + step) for key in KEYS])
        time.sleep(0.005)
    run.artifact(curve)
"""


def query(project: Path, question: str) -> list:
    with sqlite3.connect(project / "mlflow.db") as store:
        rows = store.execute(question).fetchall()
    store.close()
    return rows


def test_eight_experiments_at_once_make_one_store_and_lose_nothing(tmp_path):
    code = CHILD.replace("STEPS", str(NUM_STEPS)).replace("KEYS", str(KEYS))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_TRACKING"))}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(number)],
            env={**kept, "DVC_EXP_NAME": f"lr-{number}", "DVC_EXP_BASELINE_REV": "a" * 40},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(NUM_EXPERIMENTS)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:  # all start in the same moment, on a store that does not exist
            child.stdin.close()
        assert [child.wait(timeout=300) for child in children] == [0] * NUM_EXPERIMENTS
        said = [child.stderr.read() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stderr.close()
    assert not any("kept" in text or "Traceback" in text for text in said), said
    assert query(tmp_path, "SELECT status, count(*) FROM runs GROUP BY 1") == [("FINISHED", NUM_EXPERIMENTS)]
    counted = (
        "SELECT run_uuid, key, count(*), count(DISTINCT step) FROM metrics WHERE key NOT LIKE 'system/%' GROUP BY 1, 2"
    )
    points = query(tmp_path, counted)
    assert len(points) == NUM_EXPERIMENTS * len(KEYS)
    assert {row[2:] for row in points} == {(NUM_STEPS, NUM_STEPS)}
    assert len(query(tmp_path, "SELECT * FROM params")) == NUM_EXPERIMENTS
    question = "SELECT key, value FROM tags WHERE key IN ('dvc.experiment', 'dvc.baseline', 'data') ORDER BY 1, 2"
    numbers = range(NUM_EXPERIMENTS)
    assert query(tmp_path, question) == [
        *[("data", "00000000")] * NUM_EXPERIMENTS,
        *[("dvc.baseline", "a" * 40)] * NUM_EXPERIMENTS,
        *[("dvc.experiment", f"lr-{number}") for number in numbers],
    ]
    assert len(query(tmp_path, "SELECT * FROM datasets")) == NUM_EXPERIMENTS
    assert sorted(path.name for path in tmp_path.glob("mlartifacts/*/artifacts/*.csv")) == [
        f"curve-{number}.csv" for number in numbers
    ]
    assert list((tmp_path / ".rootstock/runs").iterdir()) == [], "unsent journals"


def test_the_noted_choice_is_named_unless_it_is_replaced():
    choice = ["data=mine", "recipe=tiny", "pretrain.seed=1"]
    overrides = ["recipe=other", "finetune.full.training.epochs=1,2"]
    assert experiment.named(choice, overrides) == ["data=mine", "pretrain.seed=1", *overrides]
    assert experiment.named(["pretrain.seed=1"], ["++pretrain.seed=2"]) == ["++pretrain.seed=2"]


@pytest.fixture
def conf(repository) -> Path:
    return repository / "conf"


def test_the_command_runs_in_a_copy_and_names_the_choice(conf):
    ask = {"choice": ["recipe=tiny"], "overrides": ["finetune.full.training.epochs=3"], "name": "few"}
    command = experiment.prepare(conf, queue=False, **ask)
    assert command[1:] == [
        *["-m", "dvc", "exp", "run", "--temp", "--name", "few"],
        *["--set-param", "recipe=tiny", "--set-param", "finetune.full.training.epochs=3"],
    ]
    assert "--queue" in experiment.prepare(conf, queue=True, **ask)


@pytest.mark.parametrize(
    ("overrides", "queue", "said"),
    [
        (["finetune.full.training.epochs=1,2"], False, "found a sweep of 2 experiments, wanted one; --queue"),
        (["finetune.full.training.epochs=3,-1"], True, "finetune.full.training.epochs"),  # the second of the sweep
        (["finetune.full.training.epoch=3"], True, "did you mean epochs"),
        (["finetune.full.training.epochs=[3"], False, "finetune.full.training.epochs=[3"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_queued(conf, overrides, queue, said):
    with pytest.raises(ParamsError, match=re.escape(said)):
        experiment.prepare(conf, choice=[], overrides=overrides, queue=queue, name=None)


def test_the_advice_fits_what_was_asked():
    assert experiment.advice(queue=True, name="lr").startswith("dvc queue start")
    alone = experiment.advice(queue=False, name="lr")
    assert "queue" not in alone
    assert "LIKE 'lr%'" in alone
