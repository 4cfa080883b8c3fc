"""What the doctor checks of DVC, git, configuration, data and training states."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from rootstock import layout
from rootstock.config.compose import compose
from rootstock.config.load import read_yaml
from rootstock.config.section import ParamsError
from rootstock.data.archives import ArchiveError
from rootstock.ops import configuration, dvc_lock, tidy
from rootstock.ops.collection import open_collection
from rootstock.ops.doctor.finding import FAIL, OK, WARN, Finding
from rootstock.ops.explanation import dvc_status
from rootstock.ops.locks import holder
from rootstock.schema import source as source_schema

OLD_DAYS = 30
MEGABYTE = 1e6


def recorded() -> Iterator[Finding]:
    """Whether dvc.lock is there and whole."""
    if not layout.DVC_LOCK.is_file():
        yield Finding("DVC", "dvc.lock", OK, "nothing is reproduced yet: `make repro` does it")
        return
    try:
        num_records = len(dvc_lock.current())
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # half a file can be any YAML
        yield Finding("DVC", "dvc.lock", FAIL, f"dvc.lock is broken: {error}".splitlines()[0], "rootstock mend")
    else:
        yield Finding(
            "DVC", "dvc.lock", OK, f"dvc.lock records {num_records} stages; `rootstock explain`: what is stale"
        )


def remote() -> Iterator[Finding]:
    """Whether a remote is configured, and there where it is a folder; a server is not asked."""
    from dvc.config import Config

    config = Config.from_cwd()
    remotes, default = config["remote"], config["core"].get("remote")
    if not remotes:
        yield Finding("DVC", "remote", OK, "no remote: outputs are here only; `dvc remote add -d NAME URL` adds one")
        return
    if default is None and len(remotes) > 1:
        text = f"none of the remotes {', '.join(remotes)} is the default"
        yield Finding("DVC", "remote", WARN, text, f"dvc remote default {next(iter(remotes))}")
        return
    name = default or next(iter(remotes))
    url = str(remotes.get(name, {}).get("url", ""))
    if not url:
        yield Finding("DVC", "remote", FAIL, f"the default remote {name!r} has no url", "dvc remote list")
    elif "://" in url:
        yield Finding("DVC", "remote", OK, f"remote {name}, a server: not asked here, `dvc status --cloud` does")
    elif Path(url).is_dir():
        yield Finding("DVC", "remote", OK, f"remote {name}: {url}")
    else:
        remedy = f"mount or make that folder, or dvc remote modify {name} url FOLDER"
        yield Finding("DVC", "remote", WARN, f"remote {name}: {url} is not there", remedy)


def locks() -> Iterator[Finding]:
    """Who works here now, and what ended processes left."""
    for path, writer in dvc_status.writers(Path()).items():
        yield Finding("DVC", "writer", OK, f"{path} is being written: pid {writer.pid} ({writer.command})")
    held = {path: who for path in sorted(layout.state().rglob("*.lock")) if (who := holder(path)) is not None}
    for path, who in held.items():
        yield Finding("DVC", "stage", OK, f"{path.stem} runs: {who}")
    if dvc_status.is_locked(Path()):
        yield Finding("DVC", "lock", OK, "a DVC command is at work")
    elif dead := dvc_status.stale(Path()):
        text = f"{len(dead)} entries of processes that are gone in {dvc_status.WRITERS}: {dead[0]}"
        yield Finding("DVC", "lock", WARN, text, "rootstock mend")
    elif not held:
        yield Finding("DVC", "lock", OK, "no lock is held")


def git() -> Iterator[Finding]:
    """Whether there is a repository, and an identity to commit with."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        text = "no git repository with a commit: no result can be traced to its code"
        yield Finding("git", "repository", WARN, text, "git init && git add -A && git commit -m Begin")
        return
    changes = (_git("status", "--porcelain") or "").splitlines()
    text = f"commit {head[:12]}" + (f", {len(changes)} files with changes" if changes else ", nothing changed")
    yield Finding("git", "repository", OK, text)
    identified = all(
        os.environ.get(f"GIT_{who}_EMAIL") or _git("config", "user.email") for who in ("AUTHOR", "COMMITTER")
    )
    if not identified:
        remedy = "git config user.name NAME && git config user.email ADDRESS"
        yield Finding("git", "identity", WARN, "no identity: retraining cannot commit", remedy)


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip()


def parameters() -> Iterator[Finding]:
    """Whether params.yaml is what conf/ composes with the choice that it notes."""
    if not layout.PARAMS.is_file():
        yield Finding("configuration", "params", FAIL, "params.yaml is missing", "make configure")
        return
    try:
        chosen = configuration.choice(layout.PARAMS)
        differences = configuration.differences(compose(layout.CONF, chosen), read_yaml(layout.PARAMS))
    except ParamsError as error:
        text = " ".join(str(error).split())
        yield Finding("configuration", "params", FAIL, text, "mend conf/, then make configure")
        return
    if differences:
        shown = "; ".join(differences[:3]) + (f" and {len(differences) - 3} more" if len(differences) > 3 else "")
        text = f"params.yaml is not what conf/ composes: {shown}"
        remedy = "edit conf/ and not params.yaml; make configure writes it (make repro does, and drops these edits)"
        yield Finding("configuration", "params", WARN, text, remedy)
    else:
        yield Finding("configuration", "params", OK, f"params.yaml is conf/ with {' '.join(chosen) or 'its defaults'}")


def archives() -> Iterator[Finding]:
    """Whether the raw archives are where `fetch` found them, by name and size."""
    for dataset in layout.DATASETS:
        note = layout.source(dataset)
        if not note.is_file():
            yield Finding("data", dataset, OK, f"{dataset}: not fetched yet")
            continue
        noted = source_schema.read(note)
        collection = open_collection(dataset)
        wrong = [problem for row in noted["files"] if (problem := _archive(collection, row))]
        if not wrong:
            num_bytes = sum(row["num_bytes"] for row in noted["files"])
            size = f"{len(noted['files'])} files, {num_bytes / MEGABYTE:.0f} MB"
            text = f"{dataset}: {noted['collection']}, {size}, all there"
            yield Finding("data", dataset, OK, text)
            continue
        folders = ", ".join(map(str, layout.archives()))
        remedy = f"make repro fetches again what it can; searched: {folders} (ROOTSTOCK_ARCHIVES names more)"
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield Finding("data", dataset, FAIL, f"{dataset}: {'; '.join(wrong[:3])}{more}", remedy)


def _archive(collection, row: dict) -> str | None:
    try:
        path = collection.path(row["name"])
        found = path.stat().st_size
    except (ArchiveError, OSError):
        return f"{row['name']} is missing"
    return None if found == row["num_bytes"] else f"{path} has {found} bytes, wanted {row['num_bytes']}"


def leftovers() -> Iterator[Finding]:
    """Whether dropped replicas left files."""
    found = tidy.leftovers()
    if found:
        text = f"{len(found)} files or folders of replicas that params.yaml no longer names: {found[0]} …"
        yield Finding("data", "leftovers", WARN, text, "make tidy")


def training_states() -> Iterator[Finding]:
    """What interrupted trainings keep for their continuation."""
    folders = [path for path in (layout.state() / "training").glob("*") if path.is_dir()]
    idle = [path for path in folders if holder(path.with_suffix(".lock")) is None]
    if not idle:
        return
    num_bytes = sum(file.stat().st_size for path in idle for file in path.rglob("*") if file.is_file())
    text = f"{len(idle)} interrupted trainings ({num_bytes / MEGABYTE:.0f} MB) would go on with the same configuration"
    old = [path for path in idle if time.time() - path.stat().st_mtime > OLD_DAYS * 86400]
    if not old:
        yield Finding("data", "states", OK, f"{text}: {', '.join(path.name for path in idle[:3])}")
        return
    free = shutil.disk_usage(layout.state()).free / MEGABYTE
    remedy = "\n".join(f"rm -r {path}    (it then starts anew)" for path in old[:3])
    yield Finding(
        "data", "states", WARN, f"{text}; {len(old)} untouched for {OLD_DAYS} days; {free:.0f} MB free", remedy
    )
