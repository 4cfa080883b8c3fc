"""Loaded by each Python process of a trial: notes the stage processes and every change they make in the project.

`$FAULTS_TRACE` names the file; a line is [time, stage, stage's process, event, path]. Files that several processes
may share (locks, unsent journals, the store) are left out.
"""

import json
import os
import sys
import time

SHARED = (".lock", ".db", ".db-journal", ".db-wal", ".db-shm", ".pyc")
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(trace: str, stage: str, root: str) -> None:
    """Note from now on."""
    # worker processes belong to the process that DVC started
    owner = int(os.environ.setdefault("FAULTS_OWNER", str(os.getpid())))
    file = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    separate = tuple(os.path.join(root, name) for name in (".rootstock/runs/", "mlartifacts/"))

    def note(event: str, path: str) -> None:
        os.write(file, json.dumps([time.time(), stage, owner, event, path]).encode() + b"\n")

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, str) or not flags & CHANGING:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            path = os.fspath(arguments[1 if event == "os.rename" else 0])
        else:
            return
        path = os.path.abspath(path)
        if path.startswith(root) and not path.startswith(separate) and not path.endswith(SHARED):
            note(event, path)

    if owner == os.getpid():
        note("start", "")
    sys.addaudithook(hook)


if {"FAULTS_TRACE", "DVC_STAGE", "DVC_ROOT"} <= os.environ.keys():
    watch(os.environ["FAULTS_TRACE"], os.environ["DVC_STAGE"], os.path.join(os.environ["DVC_ROOT"], ""))
