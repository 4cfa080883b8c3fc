"""What a killed `dvc` leaves does not stop the next one, and nothing of a living process is touched."""

import json
import os
import subprocess
import sys

import pytest
import small_project

from rootstock.ops import mend

STAGES = "stages:\n" + "".join(
    f"  s{number}:\n    cmd: echo {number} > o{number}\n    deps: [d{number}]\n    outs: [o{number}]\n"
    for number in range(3)
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A repository of three small stages that have run, committed."""
    folder = tmp_path_factory.mktemp("dvc")
    (folder / "dvc.yaml").write_text(STAGES)
    for number in range(3):
        (folder / f"d{number}").write_text(str(number))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        small_project.run(folder, *command)
    small_project.commit(folder, "Begin")
    return folder


@pytest.fixture
def project(ran, tmp_path, monkeypatch):
    small_project.run(ran, "cp", "-a", f"{ran}/.", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dvc(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=project, env=small_project.environment(), text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def test_a_dvc_lock_that_broke_off_stops_dvc_and_is_mended(project):
    whole = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(whole[: whole.index("outs:", whole.index("  s1:")) + 2])
    assert dvc(project, "repro").returncode != 0, "if DVC itself mends this one day, we need not"
    assert mend.mend() == ["dvc.lock: broke off when dvc was killed; kept 3 whole records"]
    assert (project / "dvc.lock").read_text() == whole, "what it lost is as it was committed"
    assert "up to date" in dvc(project, "repro").stdout
    assert mend.mend() == []


def test_cut_anywhere_a_lock_keeps_its_whole_records(project):
    whole = (project / "dvc.lock").read_text()
    begins = [whole.index(f"  s{number}:") for number in range(3)] + [len(whole)]
    for end in range(0, len(whole) + 1, 7):
        kept = mend.salvage(whole[:end])
        assert kept in {"", *(whole[:begin] for begin in begins), whole[:end]}
        assert mend.salvage(kept) == kept
    assert mend.salvage(whole) == whole
    assert mend.salvage("") == ""


def test_what_a_lock_lost_comes_from_the_copy_that_the_last_stage_kept(project, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (project / "d1").write_text("new")
    small_project.run(project, "dvc", "repro")
    whole = (project / "dvc.lock").read_text()
    mend.keep()
    (project / "dvc.lock").write_text(whole[: whole.index("outs:", whole.index("  s0:")) + 2])
    assert len(mend.mend()) == 1
    assert (project / "dvc.lock").read_text() == whole, "not the committed one, in which s1 had run with another d1"
    monkeypatch.setenv("DVC_ROOT", str(project / "elsewhere"))  # an experiment's copy
    mend.keep()
    assert not (project / "elsewhere").exists()


def test_a_merge_conflict_is_a_persons_to_decide(project):
    whole = (project / "dvc.lock").read_text()
    at = whole.index("  s1:")
    conflicted = f"{whole[:at]}<<<<<<< HEAD\n{whole[at:]}=======\n{whole[at:]}>>>>>>> other\n"
    (project / "dvc.lock").write_text(conflicted)
    with pytest.raises(
        ValueError, match=r"^dvc.lock: line \d+: found a merge conflict of git, wanted one of"
    ) as caught:
        mend.mend()
    number = conflicted.splitlines().index("<<<<<<< HEAD") + 1
    assert f"line {number}:" in str(caught.value)
    assert "`git checkout --ours dvc.lock`" in str(caught.value)
    assert (project / "dvc.lock").read_text() == conflicted


def test_without_a_commit_that_has_it_an_empty_lock_goes(project):
    small_project.run(project, "git", "rm", "-q", "--cached", "dvc.lock")
    small_project.run(project, "git", "commit", "-q", "-m", "Forget")
    (project / "dvc.lock").write_text("")
    assert mend.mend() == ["dvc.lock: broke off when dvc was killed; kept 0 whole records"]
    assert not (project / "dvc.lock").exists()
    assert dvc(project, "repro").returncode == 0


def test_a_list_that_broke_off_or_names_a_stranger_by_pid_stops_dvc_and_is_mended(project):
    listed = project / ".dvc/tmp/rwlock"
    (project / "d1").write_text("new")
    listed.write_text('{"write": {"')
    assert dvc(project, "repro").returncode != 0
    assert len(mend.mend()) == 1
    stranger = {"pid": os.getppid(), "cmd": "dvc repro"}  # a pid that was used again
    reader = {"pid": 2**22 + 1, "cmd": "dvc repro"}  # none has it
    listed.write_text(json.dumps({"write": {str(project / "o1"): stranger}, "read": {str(project / "d1"): [reader]}}))
    assert "busy" in (dvc(project, "repro").stderr)
    assert mend.mend() == [".dvc/tmp/rwlock: removed the entries of ended processes"]
    assert dvc(project, "repro").returncode == 0


def test_nothing_is_touched_while_another_dvc_is_at_work(project):
    whole = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(whole[:-40])
    with mend._held(project / ".dvc/tmp/lock") as held:
        assert held
        assert mend.mend() == []
    assert (project / "dvc.lock").read_text() == whole[:-40]
    assert len(mend.mend()) == 1


def test_half_files_of_the_dead_go_and_those_of_the_living_stay(project):
    folder = project / "data/manifest"
    folder.mkdir(parents=True)
    dead, living, other = (folder / name for name in (f".t.parquet.{2**22 + 1}.tmp", f".t.{os.getpid()}.tmp", ".x.tmp"))
    for path in (dead, living, other):
        path.write_text("half")
    assert mend.mend() == [f"removed {dead.relative_to(project)}, half written"]
    assert (living.exists(), other.exists()) == (True, True)
