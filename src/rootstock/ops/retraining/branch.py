"""A retraining's branch: named after what it was made from, committed and pushed without leaving the present one."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rootstock import layout
from rootstock.ops.fingerprint import GIT_SECONDS, MADE_BY_REPRO, revision

REMOTE = "origin"
PREFIX = "retrain/"
# what decides a result: scripts, library and pipeline as committed; parameters and data are hashed as they lie here
CODE = ("dvc.yaml", "pipeline", "src")
AUTHOR = "retrain"


class GitError(ValueError):
    """A git command failed; the message is git's own."""


def git(*arguments: str, **environment: str) -> str:
    """Run git here; return what it printed.

    Raises:
        GitError: it failed.
    """
    done = subprocess.run(
        ["git", *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip() or f'ended with status {done.returncode}'}")
    return done.stdout


def check_ready() -> None:
    """Refuse to retrain on a state that no revision has, or where nobody could be told of it.

    Raises:
        ValueError: saying what was found and what to do.
    """
    found = revision(Path())
    if found["git_revision"] is None:
        raise ValueError("found no git repository with a commit, wanted one: a retraining ends as a branch")
    if found["git_dirty"] is None:
        raise ValueError(
            f"found no answer from `git status` in {GIT_SECONDS:.0f} s, wanted one: a retraining needs a clean "
            "checkout; run `git status` once by hand, git remembers what it saw"
        )
    if found["git_dirty"]:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        raise ValueError(
            f"found local changes, wanted a clean checkout: a retraining belongs to a revision; commit them\n{changed}"
        )
    if REMOTE not in git("remote").split():
        raise ValueError(f"found no git remote {REMOTE!r}, wanted one to push the branch to: git remote add {REMOTE} …")


def name() -> str:
    """Return the branch of the present state: equal code, parameters and data give the same, whatever was edited else.

    The lock file and the reports do not count: they follow from it. A state that comes back after its branch was merged
    gets the next name, `…-2`: what came between has to be undone, and the old branch stays as it is.

    Raises:
        GitError: the remote cannot be reached.
    """
    digest = hashlib.sha256(git("ls-tree", "-r", "HEAD", "--", *CODE).encode())
    for path in (layout.PARAMS, *map(layout.source, layout.DATASETS)):
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"-")
    first = f"{PREFIX}{digest.hexdigest()[:12]}"
    heads = _heads(f"{first}*")
    found, number = first, 1
    while found in heads and _merged(heads[found]):
        number += 1
        found = f"{first}-{number}"
    return found


def _heads(pattern: str) -> dict[str, str]:
    """Return the remote's branches of a pattern, and the revision of each."""
    rows = [line.split() for line in git("ls-remote", "--heads", REMOTE, f"refs/heads/{pattern}").splitlines()]
    return {ref.removeprefix("refs/heads/"): made for made, ref in rows}


def pushed(branch: str) -> str | None:
    """Return the branch's revision on the remote; None where the remote has no such branch.

    Raises:
        GitError: the remote cannot be reached.
    """
    return _heads(branch).get(branch)


def others(branch: str) -> list[str]:
    """Return the other retrainings that the remote has and HEAD has not merged."""
    return sorted(name for name, made in _heads(f"{PREFIX}*").items() if name != branch and not _merged(made))


def _merged(made: str) -> bool:
    """Whether HEAD has a revision, or a later commit that brought its dvc.lock: a merge may squash."""
    try:
        if git("merge-base", made, "HEAD").strip() == made:
            return True
        lock = git("rev-parse", f"{made}:{layout.DVC_LOCK}").strip()
        return bool(
            git("log", "-1", "--format=%H", f"--find-object={lock}", f"{made}..HEAD", "--", str(layout.DVC_LOCK))
        )
    except GitError:  # not even here, so HEAD has nothing of it
        return False


def commit(branch: str, message: str, *, paths: Sequence[str] = MADE_BY_REPRO) -> str:
    """Commit what the retraining wrote onto HEAD, under the branch's name; return the revision.

    HEAD, the index and the files stay as they are. A commit that an interrupted retraining left is replaced.

    Args:
        paths: files and folders that the commit takes from here.
    """
    own = _own_index()
    git("read-tree", "HEAD", **own)
    git("add", "--all", "--", *(path for path in paths if Path(path).exists()), **own)
    tree = git("write-tree", **own).strip()
    made = git("commit-tree", tree, "-p", "HEAD", "-m", message, **_author()).strip()
    git("update-ref", f"refs/heads/{branch}", made)
    return made


def _own_index() -> dict[str, str]:
    return {"GIT_INDEX_FILE": str(layout.state() / "retrain.index")}


def left(branch: str) -> str | None:
    """Return the revision under the branch's name here, where what a reproduction writes still lies as it holds it.

    That is so where a retraining was killed after its push, or another machine has pushed the branch meanwhile.
    """
    try:
        made = git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").strip()
    except GitError:
        return None
    own = _own_index()
    git("read-tree", made, **own)
    return None if git("diff", "--name-only", "--", *MADE_BY_REPRO, **own) else made


def _author() -> dict[str, str]:
    """A name for machines that have none, such as a fresh runner."""
    try:
        git("var", "GIT_COMMITTER_IDENT")
    except GitError:
        names = ("GIT_AUTHOR", "GIT_COMMITTER")
        return {f"{who}_NAME": AUTHOR for who in names} | {f"{who}_EMAIL": f"{AUTHOR}@localhost" for who in names}
    return {}


def push(branch: str) -> None:
    """Push the branch; one that another machine has pushed meanwhile is left alone.

    Raises:
        GitError: the remote refused it.
    """
    git("push", "--quiet", REMOTE, f"refs/heads/{branch}:refs/heads/{branch}")


def message(branch: str) -> tuple[str, str]:
    """Return the title and the text of the branch's last commit, fetched where it is not here."""
    git("fetch", "--quiet", REMOTE, f"refs/heads/{branch}")
    title, _, text = git("log", "-1", "--format=%B", "FETCH_HEAD").partition("\n")
    return title, text.strip()


def put_back(made: str) -> None:
    """Make the files as HEAD has them, so that the next `git pull` finds a clean checkout.

    Args:
        made: the revision that holds what is overwritten.
    """
    restore(_changed("MD", made))
    for path in _changed("A", made):
        Path(path).unlink(missing_ok=True)


def restore(paths: list[str]) -> None:
    """Bring files or folders back from HEAD, those that HEAD has."""
    known = [path for path in paths if git("ls-tree", "HEAD", "--", path)]
    if known:
        git("checkout", "--quiet", "HEAD", "--", *known)


def _changed(kinds: str, made: str) -> list[str]:
    """Return the files that a revision changed (M), removed (D) or added (A)."""
    found = git("diff", "-z", "--name-only", "--no-renames", f"--diff-filter={kinds}", "HEAD", made)
    return list(filter(None, found.split("\0")))
