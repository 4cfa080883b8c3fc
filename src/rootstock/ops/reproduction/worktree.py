"""A clean worktree of git at a revision, in which `dvc repro` finds nothing of this project but its code."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock import layout
from rootstock.config.load import read_yaml
from rootstock.ops.locks import stage_lock, unwind_on_sigterm

LOG = "repro.log"
RUNNING = re.compile(r"Running stage '(?P<name>[^']+)'")
LEAVE_SECONDS = 20.0  # a stage that is told to end needs up to 5 to tell MLflow
# this project's folders, cache, store, index
FOREIGN = ("DVC_", "MLFLOW_", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "PYTHONPATH", "PYTHONHOME")
LAST_LINES = 15


@contextmanager
def checkout(revision: str, *, name: str, keep: bool) -> Iterator[Path]:
    """Yield a worktree at a revision; removed afterwards, also on Ctrl-C and SIGTERM, unless it is to be kept.

    One that an earlier call kept, or left when it was killed, gives way.

    Args:
        revision: 40 digits.
        name: of the folder in .rootstock/reproduce.

    Raises:
        LockedError: another process reproduces the same.
        ValueError: git cannot make it; in its words.
    """
    base = (layout.state() / "reproduce" / name).resolve()
    params = _git("show", f"{revision}:{layout.PARAMS}").decode()
    with unwind_on_sigterm(), stage_lock(base.with_suffix(".lock"), timeout_s=0.0):
        _remove(base)
        base.mkdir(parents=True)
        try:
            (base / "params.yaml").write_text(params)
            paths = _folders(base / "params.yaml")
            # `../images` must lead to a place of ours: as many levels above the worktree as a path goes up
            depth = max([path.parts.count("..") for path in paths], default=0)
            folder = base.joinpath(*["up"] * depth, "project")
            _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
            for path in paths:
                _link(folder, path, base)
            yield folder
        finally:
            if not keep:
                _remove(base)


def _folders(params: Path) -> list[Path]:
    """The relative paths of collections that are a person's own folder."""
    sections = read_yaml(params).get("fetch", {}).values()
    paths = {section["path"] for section in sections if section.get("collection") == "folder"}
    return [Path(path) for path in sorted(paths) if not Path(path).expanduser().is_absolute()]


def _link(folder: Path, path: Path, base: Path) -> None:
    """Let a relative path lead to the project's own images, unless git brought them."""
    link = Path(os.path.normpath(folder / path))
    assert link.is_relative_to(base), f"{link} is not in {base}"
    if not os.path.lexists(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((layout.project() / path).resolve(), target_is_directory=True)


def _remove(base: Path) -> None:
    if base.exists():
        shutil.rmtree(base)
    _git("worktree", "prune")


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(layout.project()), *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def environment(folder: Path, *, num_threads: int | None) -> dict[str, str]:
    """Return the environment for commands in a worktree: this interpreter, this machine, nothing of this project.

    Archives that were downloaded are found in the project's folders, so that they are not downloaded again; generated
    ones are made again, because these are looked for in the worktree alone.

    Args:
        num_threads: of the recorded run, used unless `$ROOTSTOCK_THREADS` says otherwise; None where not known.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    if num_threads is not None:
        kept.setdefault("ROOTSTOCK_THREADS", str(num_threads))
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "ROOTSTOCK_ARCHIVES": os.pathsep.join(str(path.resolve()) for path in layout.archives()),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/site"),  # else hashes of files elsewhere are remembered
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }


def repro(folder: Path, target: str, *, num_stages: int, num_threads: int | None, say: Callable[[str], None]) -> None:
    """Run one stage and all it depends on, from nothing: an empty cache, no run cache, a store of its own.

    Args:
        folder: the worktree.
        target: the stage's name.
        num_stages: of its chain, for the progress lines.
        say: takes a line when a stage begins.

    Raises:
        ValueError: a stage failed; with the end of what it printed.
    """
    log = folder.parent / LOG
    (folder / layout.DVC_LOCK).unlink(missing_ok=True)  # what it holds afterwards was made here, never read from git
    env = environment(folder, num_threads=num_threads)
    dvc = [sys.executable, "-m", "dvc"]
    cache = [*dvc, "config", "--quiet", "--local", "cache.dir", str(folder / ".dvc/cache")]
    subprocess.run(cache, cwd=folder, env=env, check=True)
    command = [*dvc, "repro", "--force", "--no-run-cache", target]
    begun, number, name = time.monotonic(), 0, "dvc repro"
    with open(log, "w") as file, _ended(command, folder, env) as process:
        for line in process.stdout:
            file.write(line)
            if match := RUNNING.search(line):
                number, name = number + 1, match["name"]
                say(f"[{number}/{num_stages}] {name:24} after {time.monotonic() - begun:.0f} s")
    if process.returncode != 0:
        shown = "\n  ".join(log.read_text().splitlines()[-LAST_LINES:])
        raise ValueError(f"{name} failed at this revision; the end of what it printed:\n  {shown}")


@contextmanager
def _ended(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A process in a session of its own, which has ended, and its children with it, when the block is left."""
    process = subprocess.Popen(
        command, cwd=folder, env=env, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            _end(process)
        process.stdout.close()


def _end(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + LEAVE_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()  # else it stays a zombie, which counts as alive
            os.killpg(process.pid, 0)
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
