"""Why stages will rerun: on a small DVC project of shell commands, each kind of change planted and told."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import small_project

from rootstock.ops.explanation import explain
from rootstock.ops.locks import stage_lock

# DVC 3.67 with pygtrie 2.5
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
PIPELINE = """\
stages:
  shards:
    foreach: [source, target]
    do:
      cmd: mkdir -p data/shards && cp data/${item}.txt data/shards/${item}
      deps:
        - data/${item}.txt
        - code/shards.py
      outs:
        - data/shards/${item}
  finetune:
    matrix:
      strategy: ${replicas.strategies}
      seed: ${replicas.seeds}
    cmd: mkdir -p models/finetune && cat data/shards/target params.yaml > models/finetune/${item.strategy}-${item.seed}
    deps: [data/shards/target, code/loop.py, code/rng.py]
    params:
      - finetune.${item.strategy}
    outs:
      - models/finetune/${item.strategy}-${item.seed}
  select:
    cmd: mkdir -p reports/select && ls models/finetune > reports/select/challenger.json
    deps: [models/finetune]
    params: [replicas]
    outs:
      - reports/select/challenger.json: {cache: false}
"""
PARAMS = """\
replicas: {strategies: [full], seeds: [0, 1]}
finetune:
  full: {epochs: 30, optim: {lr: 0.1}}
  linear: {epochs: 30, optim: {lr: 0.1}}
"""
RUN_PARTS = {
    "stage": "finetune", "names": ["full", 0], "run_id": None, "started": "2026-01-01T00:00:00Z",
    "finished": "2026-01-01T00:01:50Z", "wall_seconds": 110.0, "seconds": {}, "images_per_second": 1.0,
    "energy_joules": None, "attempts": 1,
    "hardware": {
        "cpu": "x", "cpu_capability": "AVX2", "device": "cpu", "gpus": [], "instruction_sets": [], "memory_gb": 1.0,
        "num_cores": 1, "num_threads": 1, "world_size": 1,
    },
}  # fmt: skip


def note_run(project: Path, name: str, lock: bytes) -> None:
    environment = {
        "cuda": None, "git_dirty": False, "git_revision": "a" * 40, "lock_sha256": hashlib.sha256(lock).hexdigest(),
        "mlflow": "3", "platform": "linux-x86_64", "python": "3.11.7", "rootstock": "0.1.0", "torch": "2.15.0",
    }  # fmt: skip
    path = project / "reports/runs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RUN_PARTS | {"environment": environment}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "project"
    (folder / "code").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "requirements.lock").write_text("numpy==2.0\n")
    for name in ("shards", "loop", "rng"):
        (folder / f"code/{name}.py").write_text(f'"""About {name}."""\n\n\ndef {name}():\n    return 1  # one\n')
    for name in ("source", "target"):
        (folder / f"data/{name}.txt").write_text(name)
    small_project.run(folder, "git", "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    dvc(folder, "repro", "-q")
    note_run(folder, "finetune-full-0", b"numpy==2.0\n")
    small_project.commit(folder, "Begin")
    return folder


def dvc(project: Path, *arguments: str) -> str:
    return small_project.run(project, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(explain, "WIDTH", 1000)  # sentences unbroken
    return tmp_path / "project"


def told() -> str:
    return explain.summary(explain.examine())


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def stale(project: Path) -> set[str]:
    return set(json.loads(dvc(project, "status", "--json")))


def explained() -> set[str]:
    outlook = explain.examine()
    return {plan.stage.name for plan in outlook.plans if plan.causes}


def test_nothing_stale_is_one_line(project):
    assert told() == "Nothing will rerun: all 5 stages are as dvc.lock recorded them."
    assert stale(project) == set()


def test_a_parameter_is_told_by_its_leaf_and_what_follows_on_one_line(project):
    edit("params.yaml", "full: {epochs: 30", "full: {epochs: 12")
    text = told()
    assert text.startswith("2 stages of 5 will rerun (1 of them took 1 min 50 s last time).")
    assert "finetune@full-0, finetune@full-1 (1 of them took 1 min 50 s last time)\n" in text
    assert text.count("parameter finetune.full.epochs: 30 → 12") == 1
    assert "\nselect: follow from these where what they read comes out different\n" in text
    assert "\n2 stages stay as recorded." in text
    assert "commit -f" not in text
    assert explained() == stale(project) == {"finetune@full-0", "finetune@full-1"}


def test_another_strategys_parameter_concerns_nobody(project):
    edit("params.yaml", "linear: {epochs: 30", "linear: {epochs: 12")
    assert told().startswith("Nothing will rerun")


def test_code_that_differs_is_named_with_its_commit(project):
    edit("code/loop.py", "return 1", "return 2")
    assert "code code/loop.py: changed, not committed; the code differs" in told()
    revision = small_project.commit(project, "Return two")
    assert f"code code/loop.py: changed in {revision[:7]}" in told()
    assert "(Return two); the code differs" in told()
    assert "commit -f" not in told()


@pytest.mark.parametrize("committed", [False, True])
def test_a_docstring_and_a_comment_are_harmless_and_the_command_settles_it(project, committed):
    edit("code/loop.py", "About loop", "All about loop")
    edit("code/rng.py", "# one", "# 1")
    if committed:
        small_project.commit(project, "Say more")
    text = told()
    assert text.count("only comments, docstrings or layout differ") == 2
    command = "dvc commit -f finetune@full-0 finetune@full-1"
    assert text.endswith(f"This records it instead of running:\n  {command}")
    assert stale(project)
    dvc(project, *command.split()[1:])
    assert told().startswith("Nothing will rerun")
    assert stale(project) == set()


def test_a_harmless_and_a_harmful_change_together_are_not_harmless(project):
    edit("code/loop.py", "About loop", "All about loop")
    edit("params.yaml", "lr: 0.1}}\n  linear", "lr: 0.2}}\n  linear")
    text = told()
    assert "only comments" in text
    assert "finetune.full.optim.lr: 0.1 → 0.2" in text
    assert "commit -f" not in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""About rng."""', '"""About rng."""\nprint(__doc__)'),  # a docstring that is read
        ("return 1  # one", "return (1"),  # half an edit
        ("return 1", "return '1'"),
    ],
)
def test_what_may_matter_is_not_called_harmless(project, old, new):
    edit("code/rng.py", old, new)
    assert "the code differs" in told()
    assert "commit -f" not in told()


def test_a_text_that_git_does_not_have_is_not_called_harmless(project):
    edit("code/rng.py", "# one", "# never committed")
    dvc(project, "commit", "-f", "-q")
    edit("code/rng.py", "# never committed", "# one")
    assert "code/rng.py: changed in" in told()
    assert "the text it ran with is not in git, so it may matter" in told()
    assert "commit -f" not in told()


def test_a_new_and_a_dropped_module(project):
    Path("code/new.py").write_text("")
    edit("dvc.yaml", "code/loop.py, code/rng.py]", "code/loop.py, code/new.py]")
    assert "code code/new.py: is imported now and was not when it last ran" in told()
    assert "code/rng.py (DVC does not rerun for this)" in explain.detail(explain.examine(), "finetune@full-0")
    Path("code/new.py").unlink()
    edit("dvc.yaml", ", code/new.py]", "]")
    assert told().startswith("Nothing will rerun"), "DVC does not count a dropped module"
    assert stale(project) == set()


def test_a_module_that_is_gone(project):
    Path("code/loop.py").unlink()
    assert "code code/loop.py: is gone" in told()


def test_data_changed_by_hand_and_what_follows(project):
    Path("data/target.txt").write_text("others")
    text = told()
    assert "shards@target\n  data data/target.txt: changed by hand since this last ran" in text
    assert "finetune@full-0, finetune@full-1, select: follow from these" in text
    assert "follows from shards@target" in explain.detail(explain.examine(), "finetune@full-0")


def test_a_stage_that_ran_alone_leaves_the_next_stale(project):
    Path("data/target.txt").write_text("others")
    dvc(project, "repro", "-q", "-s", "shards@target")
    assert "data data/shards/target: shards@target has made it anew since this last ran" in told()
    assert explained() == stale(project) == {"finetune@full-0", "finetune@full-1"}


def test_a_comment_beside_data_that_are_no_longer_those_is_not_harmless(project):
    Path("data/target.txt").write_text("others")
    dvc(project, "repro", "-q", "-s", "shards@target")
    Path("data/target.txt").write_text("still others")  # so that the new shards are no cause: they will be made again
    edit("code/rng.py", "# one", "# 1")
    assert "only comments, docstrings or layout differ" in told()
    assert "commit -f" not in told(), "it would record the new shards as what the old model was trained on"


def test_missing_outputs_by_where_a_copy_is(project):
    shutil.rmtree("models/finetune")
    Path("reports/select/challenger.json").unlink()
    text = told()
    assert (
        "outputs models/finetune/full-0, models/finetune/full-1: each is not in the workspace; the cache has it" in text
    )
    assert "git has it: `git checkout -- reports/select/challenger.json`" in text
    shutil.rmtree(".dvc/cache")
    assert "neither is it in the cache; no remote is configured that could have it" in told()
    dvc(project, "remote", "add", "-q", "-d", "disk", "../remote")
    assert "neither is it in the cache; `dvc pull` restores it if the remote has it" in told()


def test_the_named_commands_restore_missing_outputs(project):
    for seed in (0, 1):
        Path(f"models/finetune/full-{seed}").unlink()
    Path("reports/select/challenger.json").unlink()
    dvc(project, "checkout", "-q")
    small_project.run(project, "git", "checkout", "--", "reports/select/challenger.json")
    assert told().startswith("Nothing will rerun")


def test_an_edited_output_and_a_lost_cache(project):
    path = Path("models/finetune/full-0")
    path.chmod(0o644)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"more")
    text = told()
    assert "was edited since the stage wrote it; `dvc checkout --force models/finetune/full-0` undoes it" in text
    dvc(project, "checkout", "-q", "--force", "models/finetune/full-0")
    assert told().startswith("Nothing will rerun")
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    cached = Path(".dvc/cache/files/md5", md5[:2], md5[2:])
    cached.unlink()
    path.unlink()
    path.write_bytes(content)
    assert "is in the workspace and lost from DVC's cache" in told()
    dvc(project, "commit", "-f", "-q", "finetune@full-0", "finetune@full-1")
    assert told().startswith("Nothing will rerun")


def test_a_changed_command(project):
    edit("dvc.yaml", "ls models/finetune >", "ls -1 models/finetune >")
    assert "command: mkdir -p reports/select && ls models/finetune > reports" in told()
    assert "→ mkdir -p reports/select && ls -1 models" in told()


def test_a_new_replica_never_ran_and_a_dropped_one_left_files(project):
    edit("params.yaml", "seeds: [0, 1]", "seeds: [1, 2]")
    Path("models/finetune/full-0").unlink()
    Path("models/finetune/full-0").mkdir()
    text = told()
    assert "finetune@full-2\n  never ran: dvc.lock knows nothing of it" in text
    assert "replicas.seeds: [0, 1] → [1, 2]" in text
    assert "no longer names: models/finetune/full-0, reports/runs/finetune-full-0.json; `make tidy`" in text


def test_a_fresh_clone_never_ran(project):
    for name in ("dvc.lock", "models", "reports", "data/shards", ".dvc/cache"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    text = told()
    assert text.startswith("5 stages of 5 will rerun.")
    assert text.count("never ran") == 1


def test_other_packages_are_a_warning(project):
    note_run(project, "finetune-full-0", b"numpy==1.0\n")
    text = told()
    assert text.startswith("Nothing will rerun")
    assert "warning: finetune@full-0 ran with another requirements.lock than the present one" in text


def test_a_broken_note_of_a_run_does_not_hide_the_rest(project):
    Path("reports/runs/finetune-full-0.json").write_text("{")
    edit("params.yaml", "full: {epochs: 30", "full: {epochs: 12")
    assert told().startswith("2 stages of 5 will rerun.")


def test_it_works_while_a_command_holds_dvc(project):
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": {str(Path("models/finetune/full-0").resolve()): holder}}))
    Path("models/finetune/full-0").unlink()
    with stage_lock(Path(".dvc/tmp/lock")):
        text = told()
    assert text.startswith("A DVC command is at work here")
    assert f"is running now: pid {os.getpid()} (dvc repro)" in text


def test_detail_lists_every_dependency_with_its_state(project):
    edit("code/loop.py", "return 1", "return 2")
    text = explain.detail(explain.examine(), "finetune")
    assert text.count("finetune@full-") == 2
    rows = [line.split() for line in text.splitlines() if line]
    md5 = hashlib.md5(b"target", usedforsecurity=False).hexdigest()
    assert ["reads", "as", "recorded", md5[:8], "data/shards/target"] in rows
    assert any(row[:2] == ["reads", "modified"] and row[-1] == "code/loop.py" for row in rows)
    assert any(row[0] == "parameter" and row[-1] == "finetune.full" for row in rows)
    assert any(row[0] == "writes" and row[-1] == "models/finetune/full-1" for row in rows)


def test_an_unknown_stage_is_named(project):
    with pytest.raises(ValueError, match=r"dvc.yaml: found no stage 'train', wanted one of shards@source, shards@tar"):
        explain.detail(explain.examine(), "train")


def test_a_broken_lock_says_what_mends_it(project):
    Path("dvc.lock").write_text("stages: [")
    with pytest.raises(ValueError, match="`rootstock mend`"):
        explain.examine()


def test_it_writes_nothing(project):
    edit("code/loop.py", "return 1", "return 2")

    def state():
        return {str(path): path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    explain.examine()  # DVC makes its own temporary folder at the first look
    before = state()
    explain.examine()
    assert state() == before
