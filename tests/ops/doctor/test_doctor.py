"""The doctor: on a fresh clone nothing fails, and each planted fault is found, named and given a remedy."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import small_project

from rootstock import cli, layout
from rootstock.ops import process
from rootstock.ops.doctor import doctor, doctor_machine, doctor_project, doctor_store, finding
from rootstock.ops.doctor.finding import FAIL, OK, WARN, Finding
from rootstock.ops.locks import stage_lock
from rootstock.ops.store import HEARTBEAT, PROCESS, Store
from rootstock.schema import promotion
from rootstock.schema import source as source_schema

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


@pytest.fixture(scope="module")
def cloned(repository: Path, tmp_path_factory) -> Path:
    """A clone on which nothing has run."""
    folder = tmp_path_factory.mktemp("cloned") / "project"
    shutil.copytree(repository / "conf", folder / "conf")
    for name in ("dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore", "params.yaml"):
        shutil.copy(repository / name, folder / name)
    small_project.run(folder, "git", "init", "-q", "-b", "main")
    small_project.run(folder, sys.executable, "-m", "dvc", "init", "-q")
    small_project.commit(folder, "Begin")
    return folder


@pytest.fixture
def project(cloned: Path, tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(cloned, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name in [name for name in os.environ if name.startswith(("DVC_", "ROOTSTOCK_", "MLFLOW_TRACKING", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "t@example.org")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "t@example.org")
    return tmp_path / "project"


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Path:
    """A folder with an MLflow store of one finished and one running run, as this process's own."""
    folder = tmp_path_factory.mktemp("opened")
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = Store(folder)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    tags = {PROCESS: json.dumps(process.identity()), HEARTBEAT: str(time.time_ns() // 1_000_000)}
    for name in ("ended", "begun"):
        run = store.client.create_run(store.experiment, run_name=name, tags=tags)
        if name == "ended":
            store.client.set_terminated(run.info.run_id, "FINISHED")
    return folder


@pytest.fixture
def tracked(project: Path, opened: Path) -> Path:
    shutil.copy(opened / "mlflow.db", project / "mlflow.db")
    sql(f"UPDATE experiments SET artifact_location = '{(project / 'mlartifacts').as_uri()}' WHERE name = 'rootstock'")
    return project


def sql(*commands: str) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database:
        for command in commands:
            database.execute(command)
        database.commit()


def only(findings, level: str) -> Finding:
    """The single finding of a level; a remedy is given wherever the level is not ok."""
    findings = list(findings)
    assert all(found.remedy for found in findings if found.level != OK)
    (found,) = [found for found in findings if found.level == level]
    return found


def levels(findings) -> set[str]:
    return {found.level for found in findings}


@contextmanager
def small_disk():
    """No file may grow beyond 2000 bytes, as on a full disk."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)


# ------------------------------------------------------------------------------------------------------------- the page


def test_a_fresh_clone_fails_nowhere_and_says_what_is_not_there_yet(project, capsys, monkeypatch):
    monkeypatch.setattr(doctor_machine.rootstock, "__file__", str(project / "src/rootstock/__init__.py"))
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("0 FAIL")
    for text in ("nothing is reproduced yet", "source: not fetched yet", "nothing is tracked yet", "no remote"):
        assert text in out
    assert not (project / "mlflow.db").exists(), "a look must make nothing"
    assert small_project.run(project, "git", "status", "--porcelain") == ""


def test_a_failure_is_the_exit_status(project, capsys, monkeypatch):
    Path("params.yaml").unlink()
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "examine", lambda: list(doctor_project.parameters()))
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 1
    expected = "configuration\n  FAIL  params.yaml is missing\n        make configure\n\n0 ok, 0 warn, 1 FAIL\n"
    assert capsys.readouterr().out == expected


def test_a_check_that_breaks_off_does_not_hide_the_others():
    def breaks():
        raise PermissionError(13, "Permission denied", "/root/secret")
        yield

    def works():
        yield Finding("b", "works", OK, "fine")

    first, second = doctor.examine([("a", breaks), ("b", works)])
    assert (first.level, first.remedy) == (FAIL, "look at /root/secret")
    assert second.text == "fine"


def test_long_texts_are_wrapped_and_remedies_are_not():
    text = finding.text([Finding("a", "b", WARN, "word " * 60, "command " * 30)])
    assert max(len(line) for line in text.splitlines() if "command" not in line) <= finding.WIDTH
    assert "        " + "command " * 30 in text


# ---------------------------------------------------------------------------------------------------------- environment


def test_this_environment_is_the_locks(project):
    assert levels([*doctor_machine.python(), *doctor_machine.packages(), *doctor_machine.torch_pair()]) == {OK}


def test_a_wrong_version_warns_and_a_missing_package_fails(project):
    lock = Path("requirements.lock")
    lock.write_text("numpy==0.1 \\\n    --hash=sha256:00\nabsent-thing==1.0 ; python_full_version < '3'\n")
    assert "numpy: found" in only(doctor_machine.packages(), WARN).text
    lock.write_text("numpy==0.1\nabsent-thing==1.0\n")
    assert "2 packages are not those of requirements.lock: absent-thing" in only(doctor_machine.packages(), FAIL).text
    lock.unlink()
    assert "is missing" in only(doctor_machine.packages(), FAIL).text


def test_an_unsupported_python(project, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert "found Python 3.9.2, wanted" in only(doctor_machine.python(), FAIL).text


def test_torchvision_that_does_not_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "do not import together" in only(doctor_machine.torch_pair(), FAIL).text


def test_another_checkouts_library_and_interpreter(project):
    found = list(doctor_machine.checkout())
    assert "found the library of" in only(found, FAIL).text
    assert "found the interpreter of" in only(found, WARN).text


# ----------------------------------------------------------------------------------------------------- machine and disk


@pytest.mark.parametrize(("given", "level"), [("0", FAIL), ("many", FAIL), ("100000", WARN)])
def test_thread_settings(monkeypatch, given, level):
    monkeypatch.setenv("ROOTSTOCK_THREADS", given)
    assert "ROOTSTOCK_THREADS" in only(doctor_machine.cores(), level).text


def test_limits_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_machine, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert "limited to the time of 1.5 (cgroup)" in next(doctor_machine.cores()).text
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("400000000\n")
    assert "0.6 of 1.0 GB memory free" in only(doctor_machine.memory(), WARN).text
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert "cgroup" not in next(doctor_machine.cores()).text


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    class Card:
        def describe(self):
            return {"name": "Card", "memory_gb": 80.0, "driver": "1"}

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor_machine.hardware, "gpus", lambda: [Card()])
    assert "the driver has 1 GPUs (Card (80 GB))" in only(doctor_machine.gpus(), WARN).text
    monkeypatch.setenv("ROOTSTOCK_DEVICE", "cuda")
    assert "torch sees no GPU" in only(doctor_machine.gpus(), FAIL).text


def test_a_full_disk_and_a_nearly_full_one(project, monkeypatch):
    with small_disk():
        found = list(doctor_machine.space())
    assert "cannot be written" in only(found, FAIL).text
    assert not list(project.glob(".doctor-*"))
    monkeypatch.setattr(doctor_machine, "LITTLE_SPACE", 1e18)
    assert "the outputs made anew may take" in only(doctor_machine.space(), WARN).text


def test_links_between_cache_and_workspace(project):
    assert levels(doctor_machine.links()) == {OK} or "copy" in only(doctor_machine.links(), WARN).text
    small_project.run(project, sys.executable, "-m", "dvc", "config", "cache.type", "copy")
    assert "outputs take twice the room" in only(doctor_machine.links(), WARN).text
    assert small_project.run(project, "git", "status", "--porcelain").split() == ["M", ".dvc/config"]


# ------------------------------------------------------------------------------------------------------- DVC, git, data


def test_a_broken_lock_file(project):
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  a:\n    cmd: [")
    found = only(doctor_project.recorded(), FAIL)
    assert "dvc.lock is broken" in found.text
    assert found.remedy == "rootstock mend"


def test_remotes(project):
    def dvc(*arguments):
        small_project.run(project, sys.executable, "-m", "dvc", *arguments)

    dvc("remote", "add", "disk", str(project / "remote"))
    assert "is not there" in only(doctor_project.remote(), WARN).text
    (project / "remote").mkdir()
    assert levels(doctor_project.remote()) == {OK}
    dvc("remote", "add", "far", "s3://bucket/key")
    assert "is the default" in only(doctor_project.remote(), WARN).text
    dvc("remote", "default", "far")
    assert "a server: not asked" in only(doctor_project.remote(), OK).text


def test_who_holds_a_lock_and_what_a_dead_one_left(project):
    with stage_lock(layout.state() / "training/pretrain-0123.lock"), stage_lock(Path(".dvc/tmp/lock")):
        texts = [found.text for found in doctor_project.locks()]
    assert any(text.startswith(f"pretrain-0123 runs: pid {os.getpid()}") for text in texts)
    assert "a DVC command is at work" in texts
    dead = {"pid": 2**22 + 1, "cmd": "dvc repro"}
    Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": {"/x": dead}, "read": {"/y": [dead]}}))
    found = only(doctor_project.locks(), WARN)
    assert "2 entries of processes that are gone" in found.text
    assert found.remedy == "rootstock mend"


def test_git(project, monkeypatch):
    assert levels(doctor_project.git()) == {OK}
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    assert "no identity" in only(doctor_project.git(), WARN).text
    shutil.rmtree(".git")
    assert "no git repository" in only(doctor_project.git(), WARN).text


def test_params_that_conf_does_not_compose(project):
    assert levels(doctor_project.parameters()) == {OK}
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("epochs: 30", "epochs: 31", 1))
    assert "epochs: 30 → 31" in only(doctor_project.parameters(), WARN).text
    (Path("conf/config.yaml")).write_text("defaults: [nothing]\n")
    assert only(doctor_project.parameters(), FAIL).remedy


def test_archives_that_are_gone_or_cut(project):
    images = Path("images")
    small_project.draw(images, num_images={"train": 1, "val": 1, "test": 1})
    lines = "# @package _global_\ndefaults: [folder]\nfetch: {target: {path: images}}\n"
    Path("conf/data/mine.yaml").write_text(lines)
    cli.main(["configure", "data=mine"])
    files = sorted(images.rglob("*.png"))
    rows = [
        {"name": path.relative_to(images).as_posix(), "num_bytes": path.stat().st_size, "sha256": "0" * 64}
        for path in files
    ]
    layout.source("target").parent.mkdir(parents=True)
    source_schema.write(layout.source("target"), collection="folder", verified="own", files=rows)
    assert levels(doctor_project.archives()) == {OK}
    files[0].unlink()
    files[1].write_bytes(b"cut")
    text = only(doctor_project.archives(), FAIL).text
    assert f"{rows[0]['name']} is missing" in text
    assert "has 3 bytes, wanted" in text


def test_leftovers_and_training_states(project):
    Path("models/finetune/full-99").mkdir(parents=True)
    assert only(doctor_project.leftovers(), WARN).remedy == "make tidy"
    state = layout.state() / "training/pretrain-0123"
    state.mkdir(parents=True)
    (state / "checkpoint").write_bytes(bytes(2_000_000))
    assert "1 interrupted trainings (2 MB)" in only(doctor_project.training_states(), OK).text
    os.utime(state, (0, 0))
    assert f"rm -r {state}" in only(doctor_project.training_states(), WARN).remedy


# --------------------------------------------------------------------------------------------------- store and registry


def test_a_whole_store(tracked):
    found = list(doctor_store.store())
    assert levels(found) == {OK}
    assert "runs: 1 FINISHED, 1 RUNNING" in [one.text for one in found]


def test_the_schema_read_from_files_is_mlflows_own():
    from mlflow.store.db.utils import _get_latest_schema_revision

    newest, known = doctor_store._schemas()
    assert newest == _get_latest_schema_revision()
    assert len(known) > 10


def test_a_corrupt_store(tracked):
    path = Path("mlflow.db")
    path.write_bytes(path.read_bytes()[:100] + os.urandom(200_000))
    found = only(doctor_store.store(), FAIL)
    assert "cannot be read" in found.text
    assert found.remedy.startswith(f"mv {tracked / 'mlflow.db'}")
    path.write_text("no database at all")
    assert "cannot be read" in only(doctor_store.store(), FAIL).text


def test_a_store_of_another_schema(tracked):
    older = sorted(doctor_store._schemas()[1] - {doctor_store._schemas()[0]})[0]
    sql(f"UPDATE alembic_version SET version_num = '{older}'")
    assert "mlflow db upgrade" in only(doctor_store.store(), FAIL).remedy
    sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "newer MLflow's schema" in only(doctor_store.store(), FAIL).text


def test_a_store_that_cannot_be_written(tracked, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in only(doctor_store.store(), FAIL).text


def test_a_running_run_whose_process_is_gone(tracked):
    dead = json.dumps({**process.identity(), "pid": 2**22 + 1})
    sql(f"UPDATE tags SET value = '{dead}' WHERE key = '{PROCESS}'")
    found = only(doctor_store.store(), WARN)
    assert "1 runs are RUNNING and their process is gone: begun" in found.text
    assert found.remedy.startswith("rootstock reconcile")
    elsewhere = json.dumps({**process.identity(), "place": "another host"})
    sql(f"UPDATE tags SET value = '{elsewhere}' WHERE key = '{PROCESS}'")
    assert levels(doctor_store.store()) == {OK}, "it may still live there"
    sql(f"UPDATE tags SET value = '1000' WHERE key = '{HEARTBEAT}'")
    assert "begun" in only(doctor_store.store(), WARN).text


def test_a_project_that_moved(tracked):
    sql("UPDATE experiments SET artifact_location = 'file:///old/place%201/mlartifacts' WHERE name = 'rootstock'")
    found = only(doctor_store.store(), WARN)
    assert "artifacts are recorded at /old/place 1/mlartifacts" in found.text
    assert "ln -s" in found.remedy


def test_unsent_journals(project):
    folder = layout.state() / "runs"
    with stage_lock(folder / "alive-1.jsonl"):
        assert list(doctor_store.journals()) == []
        (folder / "dead-1.jsonl").write_text("")
        assert "1 ended runs left metrics unsent" in only(doctor_store.journals(), WARN).text


def test_registry_and_ledger(tracked, monkeypatch):
    champion = {"replica": "full-0", "bundle_hash": "a" * 32 + ".dir"}
    line = {"model": "flowers", "action": promotion.PROMOTE, "champion_after": champion}
    monkeypatch.setattr(promotion, "read", lambda path: [line])
    layout.champion("flowers").mkdir(parents=True)
    assert "alias champion is at no version" in only(doctor_store.champions(), WARN).text
    sql(
        "PRAGMA foreign_keys = OFF",
        "INSERT INTO registered_model_aliases (name, alias, version, workspace) "
        "VALUES ('flowers', 'champion', 1, 'default')",
        "INSERT INTO model_version_tags (name, version, key, value, workspace) "
        f"VALUES ('flowers', 1, 'rootstock.bundle_hash', '{champion['bundle_hash']}', 'default')",
    )
    assert "ledger and registry agree on full-0" in only(doctor_store.champions(), OK).text
    sql(f"UPDATE model_version_tags SET value = '{'b' * 32}.dir'")
    assert "alias champion is at the bundle bbbbbbbbbbbb" in only(doctor_store.champions(), WARN).text
    layout.champion("flowers").rmdir()
    assert "dvc checkout models/champions/flowers.dvc" in next(doctor_store.champions()).remedy
