"""One writer beside a training's state, and no writer that outlives who started it.

Killing `dvc` alone leaves its stage running, and a second `dvc repro` would start a second writer on the same state.
So a stage holds a kernel lock for its life, and dies with its parent. Only the standard library is imported here:
`die_with_parent` is meant to run before the heavy imports, which take seconds.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

POLL_SECONDS = 0.2
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox"}
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LockedError(ValueError):
    """Another process holds the lock; the message names it."""


class Terminated(SystemExit):
    """SIGTERM arrived: raised in the main thread so that `finally` and `with` run; the exit status is 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def stage_lock(path: Path, *, timeout_s: float = 30.0) -> Iterator[None]:
    """Hold an exclusive lock on `path` for the block; the kernel releases it however the process ends.

    The file is never removed: removing it would let a third process lock a new file of the same name.

    Args:
        path: the lock file, made when missing; while held it contains the holder's pid and command line.
        timeout_s: how long to wait for another holder, in seconds, >= 0.

    Raises:
        LockedError: another process still holds it; names its pid and command line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        if not take(file, timeout_s=timeout_s):
            raise LockedError(
                f"{path}: found it locked by {_holder(file)}, still after {timeout_s:g} s; wanted it free: "
                "two writers would destroy each other's work. Wait for that process or end it, then run again"
            )
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "command": sys.orig_argv}))
        file.flush()
        yield
        file.truncate(0)  # then close, which releases


def take(file: IO, *, timeout_s: float) -> bool:
    """Try to lock an open file exclusively for up to `timeout_s` seconds; False when somebody else has it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file at this moment, found out without taking its place in a queue."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below, whatever the answer)
    except FileNotFoundError:
        return False
    with file:
        try:
            # shared: two who ask at once do not see each other; closing releases it
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(path: Path) -> str | None:
    """Return who holds a stage's lock, in words; None where nobody does."""
    if not is_held(path):
        return None
    with open(path, encoding="utf-8") as file:
        return _holder(file)


def _holder(file: IO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except json.JSONDecodeError:  # it has the lock and has not written yet, or we read between its two writes
        return "a process that has not said who it is"
    return f"pid {holder['pid']} ({' '.join(holder['command'])})"


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` for the block; no-op outside the main thread or where someone else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def die_with_parent() -> bool:
    """Under DVC or torchrun, get SIGTERM when the process that started this one is gone; call it before heavy imports.

    A stage started by hand is left alone: under `nohup` it is meant to outlive its shell.

    Returns:
        Whether this process is now bound to its parent.
    """
    if not {"DVC_STAGE", "TORCHELASTIC_RUN_ID"} & os.environ.keys():
        return False
    parent = os.getppid()
    if sys.platform == "linux":
        # the signal follows the parent's thread that forked us: for DVC and torchrun that is the main thread
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent or _already_adopted(parent):
            os.kill(os.getpid(), signal.SIGTERM)
    name = _name(parent)
    if name is None or name in SHELLS or sys.platform != "linux":
        # the shell between DVC and us (not every shell replaces itself) survives DVC: watch who is behind it
        _watch_starter()
    return True


def _already_adopted(parent: int) -> bool:
    """Whether the starter was gone before we could bind to it: init and other adopters live in another session."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun gives each worker a session of its own
        return False
    try:
        return os.getsid(parent) != os.getsid(0)
    except OSError:  # gone, or hidden from us
        return True


def _name(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def _watch_starter() -> None:
    import psutil

    # Found here, not in the thread: were the starter killed before the thread looks, the thread would find whoever
    # adopted the shell, and where that one has our session (a container's first process) would watch it for ever.
    try:
        starter = next((process for process in psutil.Process().parents() if process.name() not in SHELLS), None)
    except psutil.NoSuchProcess:
        starter = None

    def watch() -> None:
        if starter is not None and not _already_adopted(starter.pid):
            with suppress(psutil.NoSuchProcess):
                while starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()
