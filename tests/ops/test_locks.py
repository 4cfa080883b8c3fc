"""One writer at a time, found out by name; nobody outlives who started it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rootstock.ops.locks import LockedError, Terminated, die_with_parent, stage_lock, unwind_on_sigterm

HOLDER = """
import sys, time
from pathlib import Path
from rootstock.ops.locks import stage_lock
with stage_lock(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
"""
STAGE = """
import sys, time
from rootstock.ops.locks import die_with_parent
time.sleep(float(sys.argv[1]))
print(die_with_parent(), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def begin():
    """Start a process; it and what it started end with the test."""
    started = []

    def begin(*command, **settings):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings})
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def hold(begin, path, seconds):
    process = begin(sys.executable, "-c", HOLDER, str(path), str(seconds))
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(begin, tmp_path):
    path = tmp_path / "states" / "a.lock"
    holder = hold(begin, path, 60)
    with pytest.raises(LockedError) as caught, stage_lock(path, timeout_s=0.3):
        pass
    assert str(path) in str(caught.value)
    assert f"locked by pid {holder.pid} ({sys.executable} -c" in str(caught.value)
    assert "still after 0.3 s" in str(caught.value)


def test_kill_9_releases_the_lock(begin, tmp_path):
    holder = hold(begin, tmp_path / "a.lock", 60)
    holder.kill()
    holder.wait()
    with stage_lock(tmp_path / "a.lock", timeout_s=0.0):
        pass


def test_the_second_waits_for_the_first_to_end(begin, tmp_path):
    hold(begin, tmp_path / "a.lock", 0.7)
    started = time.monotonic()
    with stage_lock(tmp_path / "a.lock", timeout_s=20.0):
        assert time.monotonic() - started > 0.2


def test_a_lock_is_free_again_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError, match="boom"), stage_lock(tmp_path / "a.lock"):
        raise RuntimeError("boom")
    with stage_lock(tmp_path / "a.lock", timeout_s=0.0):
        assert (tmp_path / "a.lock").read_text().startswith(f'{{"pid": {os.getpid()}')
    assert (tmp_path / "a.lock").read_text() == ""


def test_two_threads_of_one_process_exclude_each_other_too(tmp_path):
    with (
        stage_lock(tmp_path / "a.lock"),
        pytest.raises(LockedError, match=f"pid {os.getpid()}"),
        stage_lock(tmp_path / "a.lock", timeout_s=0.0),
    ):
        pass


def gone(pid, within_s=20.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


# an exec'd stage is bound to its parent; behind a shell that stays, the shell's parent is watched
@pytest.mark.parametrize(
    "command", [[sys.executable, "-c", STAGE, "0"], ["sh", "-c", '"$0" -c "$1" 0; true', sys.executable, STAGE]]
)
def test_a_stage_dies_with_the_dvc_that_started_it(begin, command):
    parent = begin(sys.executable, "-c", PARENT, *command, DVC_STAGE="pretrain")
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "True\n"
    pids = [child, *(process.pid for process in psutil.Process(child).children())]
    parent.kill()
    assert gone(pids[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="adoption is seen by sessions, on Linux")
def test_a_stage_whose_dvc_was_gone_before_it_could_bind_dies_too(begin):
    # the session leader dies, so that the child's new parent is of another session
    command = ["setsid", sys.executable, "-c", PARENT, sys.executable, "-c", STAGE, "1.0"]
    parent = begin(*command, DVC_STAGE="pretrain")
    child = int(parent.stdout.readline())
    os.kill(psutil.Process(child).ppid(), signal.SIGKILL)
    assert gone(child)


def test_a_stage_started_by_hand_outlives_its_shell(monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert die_with_parent() is False


def terminated(cleaned):
    with unwind_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            cleaned.append(True)


def test_sigterm_unwinds_with_status_143():
    cleaned = []
    with pytest.raises(Terminated) as caught:
        terminated(cleaned)
    assert cleaned
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_locks_module_is_light():
    code = (
        "import sys, rootstock.ops.locks; print(*{'mlflow', 'torch', 'pandas', 'numpy', 'psutil'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
