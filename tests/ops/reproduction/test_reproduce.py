"""Rebuilding a model from nothing: the same where nothing is left to chance, and where chance entered, its stage."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_project
import torch
from safetensors.torch import save_file

from rootstock import layout
from rootstock.ops import dvc_lock
from rootstock.ops.lineage import subject
from rootstock.ops.reproduction import evidence, installed, outcome, reproduce, worktree

# a stage that is no function of its inputs: blanks at the end of a JSON file, as many as chance says
PLANTED = """
    import os

    with open(layout.stats(dataset), "a") as file:
        file.write(" " * int.from_bytes(os.urandom(3), "big"))
"""


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """What every command in a small project gets, for the calls of this process."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_", "ROOTSTOCK_"))]:
        monkeypatch.delenv(name)
    for name, value in small_project.environment().items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)


def worktrees(project: Path) -> list[str]:
    return small_project.run(project, "git", "worktree", "list", "--porcelain").split("worktree ")[1:]


@pytest.mark.slow
def test_the_same_revision_gives_the_same_model(small, monkeypatch):
    monkeypatch.chdir(small)
    monkeypatch.setenv("DVC_ROOT", str(small))  # as in an experiment: it must not lead back into this project
    said: list[str] = []
    num_runs = runs(small)
    report = reproduce.reproduce("full-0", keep=False, say=said.append)
    assert report.outcome.kind == "identical", report.text
    assert report.outcome.text in report.text
    assert f"{outcome.num_compared(subject.find('full-0').chain)} of " in report.text
    assert [line.split("]")[0] for line in said if line.startswith("[")] == [f"[{n}/11" for n in range(1, 12)]
    assert runs(small) == num_runs  # the reproduction's runs are in a store of its own
    assert len(worktrees(small)) == 1
    assert not [path for path in (small / ".rootstock/reproduce").iterdir() if path.is_dir()]
    assert small_project.run(small, "git", "status", "--porcelain") == ""


def runs(project: Path) -> int:
    import sqlite3

    with sqlite3.connect(project / "mlflow.db") as store:
        (number,) = store.execute("SELECT count(*) FROM runs").fetchone()
    store.close()
    return number


def test_chance_in_a_stage_is_found_where_it_enters(small, monkeypatch):
    script = small / "pipeline/stats.py"
    text = script.read_text()
    assert '\n\n\nif __name__ == "__main__"' in text
    script.write_text(text.replace('\n\n\nif __name__ == "__main__"', f'\n{PLANTED}\n\nif __name__ == "__main__"'))
    small_project.run(small, "dvc", "repro", "stats@target")
    monkeypatch.chdir(small)
    with pytest.raises(ValueError, match=r"found no commit whose dvc\.lock holds all outputs of stats@target"):
        reproduce.reproduce("data/stats/target.json", keep=True, say=print)
    revision = small_project.commit(small, "Blanks")

    report = reproduce.reproduce("data/stats/target.json", keep=True, say=print)
    assert report.outcome.text == "differs, first at stats@target"
    assert [one.path for one in report.outcome.differences] == ["data/stats/target.json"]
    recorded = dvc_lock.at(revision)["stats@target"].outs["data/stats/target.json"]
    assert f"data/stats/target.json: found {report.outcome.differences[0].found[:12]}, recorded {recorded[:12]}" in (
        report.text
    )
    kept = small / ".rootstock/reproduce" / f"stats-target-{revision[:12]}" / "project"
    assert str(kept) in report.text
    assert (kept / "data/stats/target.json").is_file()
    assert len(worktrees(small)) == 2


def test_sigterm_leaves_no_worktree_and_no_process(small):
    command = [sys.executable, "-m", "rootstock.cli", "reproduce", "full-0"]
    env = small_project.environment(PYTHONPATH=str(small / "src"))
    with subprocess.Popen(command, cwd=small, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("[1/11]") for line in process.stdout)  # reads up to this line
        session = [line for line in processes() if f"{small}/.rootstock" in line]
        assert session
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 30
    while [line for line in processes() if f"{small}/.rootstock" in line] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [line for line in processes() if f"{small}/.rootstock" in line]
    assert len(worktrees(small)) == 1
    assert not [path for path in (small / ".rootstock/reproduce").iterdir() if path.is_dir()]


def processes() -> list[str]:
    """The working directories of all processes."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found.append(os.readlink(link))
        except OSError:  # gone, or another person's
            continue
    return found


# ------------------------------------------------------------------------------------------------------ without a model


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A repository that holds parameters alone, in a folder beside its images."""
    project = tmp_path / "a" / "project"
    project.mkdir(parents=True)
    (tmp_path / "images" / "fern").mkdir(parents=True)
    (project / "params.yaml").write_text("fetch: {target: {collection: folder, path: ../../images}}\n")
    small_project.run(project, "git", "init", "-q")
    small_project.commit(project, "Begin")
    monkeypatch.chdir(project)
    return project


def head(project: Path) -> str:
    return small_project.run(project, "git", "rev-parse", "HEAD").strip()


def test_a_relative_folder_leads_to_the_projects_own_images(tiny):
    with worktree.checkout(head(tiny), name="x", keep=False) as folder:
        assert (folder / "../../images/fern").is_dir()
        assert Path(os.path.normpath(folder / "../../images")).is_relative_to(tiny / ".rootstock/reproduce/x")
        assert (folder / "params.yaml").is_file()
    assert not (tiny / ".rootstock/reproduce/x").exists()
    assert len(worktrees(tiny)) == 1


def test_an_error_inside_removes_the_worktree_and_a_kept_one_gives_way(tiny):
    with worktree.checkout(head(tiny), name="x", keep=True) as folder:
        (folder / "old").touch()
    assert (folder / "old").exists()
    with pytest.raises(RuntimeError, match="the old one is gone"):
        _fail_in_worktree(tiny)
    assert not folder.exists()
    assert len(worktrees(tiny)) == 1


def _fail_in_worktree(project: Path) -> None:
    with worktree.checkout(head(project), name="x", keep=False) as folder:
        raise RuntimeError("the old one is here" if (folder / "old").exists() else "the old one is gone")


def test_the_revision_is_one_that_recorded_these_outputs_of_these_stages(tiny):
    revisions = []
    for stage, path in (("before", "a"), ("evaluate@full-0", "b"), ("evaluate@full-0", "a")):
        lock = f"schema: '2.0'\nstages:\n  {stage}:\n    cmd: x\n    outs:\n    - path: {path}\n      md5: {'a' * 32}\n"
        (tiny / "dvc.lock").write_text(lock)
        revisions.append(small_project.commit(tiny, "The same hash"))
    found = subject.Subject("full-0", "evaluate@full-0", dvc_lock.current(), None, [])
    assert reproduce.locate(found).revision == revisions[-1]
    small_project.run(tiny, "git", "reset", "--quiet", "--hard", revisions[1])
    with pytest.raises(ValueError, match=r"found no commit whose dvc\.lock holds all outputs of evaluate@full-0"):
        reproduce.locate(found)


def test_the_noise_is_that_of_all_recorded_seeds_this_one_among_them(tiny):
    values = {"full-0": 0.9, "full-1": 0.6, "full-2": 0.7, "fuller-0": 0.1, "linear-0": 0.2}
    (tiny / "params.yaml").write_text("select: {metric: top1, view: center}\n")
    lock = "schema: '2.0'\nstages:\n"
    for replica, value in values.items():
        path = tiny / layout.metrics(*replica.split("-"))
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"val": {"center": {"top1": {"value": value}}}}))
        lock += f"  evaluate@{replica}:\n    cmd: x\n"
    (tiny / "dvc.lock").write_text(lock)
    revision = small_project.commit(tiny, "Five replicas")
    origin = reproduce.Origin(revision, dvc_lock.at(revision), [])
    metric, band = reproduce._metrics("evaluate@full-0", origin, tiny)
    assert (metric, band.values) == (0.9, [0.9, 0.6, 0.7])
    assert reproduce._metrics("evaluate@linear-0", origin, tiny) == (0.2, None)
    assert reproduce._metrics("pretrain", origin, tiny) == (None, None)


def test_the_committed_record_is_not_there_to_be_echoed(tiny):
    made = "    cmd: test ! -e dvc.lock && touch out\n"
    (tiny / "dvc.yaml").write_text(f"stages:\n  made:\n{made}    outs:\n    - out:\n        cache: false\n")
    (tiny / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  made:\n{made}  other:\n    cmd: x\n")
    small_project.run(tiny, "dvc", "init", "-q")
    revision = small_project.commit(tiny, "A record")
    with worktree.checkout(revision, name="x", keep=False) as folder:
        worktree.repro(folder, "made", num_stages=1, num_threads=None, say=print)
        assert list(dvc_lock.current(folder)) == ["made"]


def test_nothing_of_the_project_is_handed_on(tiny, monkeypatch):
    for name in ("DVC_ROOT", "DVC_STAGE", "MLFLOW_TRACKING_URI", "GIT_DIR", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.delenv("ROOTSTOCK_THREADS")
    monkeypatch.setenv("ROOTSTOCK_ARCHIVES", "here")
    found = worktree.environment(tiny / "w", num_threads=3)
    assert not {"DVC_STAGE", "MLFLOW_TRACKING_URI", "GIT_DIR", "PYTHONPATH"} & found.keys()
    assert found["ROOTSTOCK_ARCHIVES"] == f"{tiny}/here:{tiny}/data/archives"
    assert found["ROOTSTOCK_THREADS"] == "3"
    monkeypatch.setenv("ROOTSTOCK_THREADS", "1")
    assert worktree.environment(tiny / "w", num_threads=3)["ROOTSTOCK_THREADS"] == "1"


def test_a_failing_stage_is_named_with_the_end_of_what_it_said(tiny):
    (tiny / "dvc.yaml").write_text("stages:\n  broken:\n    cmd: echo this is why && false\n")
    small_project.run(tiny, "dvc", "init", "-q")
    revision = small_project.commit(tiny, "Broken")
    with (
        worktree.checkout(revision, name="x", keep=False) as folder,
        pytest.raises(ValueError, match=r"(?s)^broken failed at this revision.*this is why"),
    ):
        worktree.repro(folder, "broken", num_stages=1, num_threads=None, say=print)


def test_a_full_disk_is_told_before_anything_runs(tiny, monkeypatch):
    (tiny / "out").write_bytes(b"x" * 1000)
    record = dvc_lock.Record("s", "true", {}, {}, {"out": "md5"})
    monkeypatch.setattr("shutil.disk_usage", lambda path: FreeDisk(1999))
    with pytest.raises(OSError, match="free, wanted"):
        reproduce._check_disk([record])
    monkeypatch.setattr("shutil.disk_usage", lambda path: FreeDisk(2000))
    reproduce._check_disk([record])


class FreeDisk:
    def __init__(self, free: int) -> None:
        self.free = free


def test_weights_are_compared_by_tensors_and_distance(tmp_path):
    a = {"x": torch.zeros(3), "y": torch.ones(2)}
    save_file(a, tmp_path / "a")
    save_file({**a, "y": torch.tensor([1.0, 1.25])}, tmp_path / "b")
    save_file({"x": a["x"]}, tmp_path / "c")
    assert evidence.weights(tmp_path / "a", tmp_path / "b") == (
        "weights: 1 of 2 tensors equal, largest difference 0.25 in y"
    )
    assert evidence.weights(tmp_path / "a", tmp_path / "c") == "weights: other tensors or shapes"


def test_packages_that_are_not_the_pinned_ones_are_named():
    pinned = (
        f'torch=={torch.__version__.partition("+")[0]} \\\n    --hash=sha256:0\nno-such==1 ; python_version < "3"\n'
    )
    assert installed.differences(pinned) == []
    assert installed.differences(pinned.replace('"3"', '"4"')) == ["no-such: found none, wanted ==1"]
