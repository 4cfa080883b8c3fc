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
        elif event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):  # a folder is made also where it exists
            path = os.fspath(arguments[1 if event == "os.rename" else 0])
        else:
            return
        path = os.path.abspath(path)
        if path.startswith(root) and not path.startswith(separate) and not path.endswith(SHARED):
            note(event, path)

    if owner == os.getpid():
        note("start", "")
    sys.addaudithook(hook)


# a script started by hand is named by the trial; as DVC_STAGE it would look for the `dvc` that it has to die with
STAGE = os.environ.get("FAULTS_STAGE") or os.environ.get("DVC_STAGE")
ROOT = os.environ.get("FAULTS_ROOT") or os.environ.get("DVC_ROOT")
if STAGE and ROOT and "FAULTS_TRACE" in os.environ:
    watch(os.environ["FAULTS_TRACE"], STAGE, os.path.join(ROOT, ""))
