"""Whether a change of a module can matter: its present text against the one that dvc.lock recorded, found in git."""

import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

from rootstock.ops.fingerprint import code_text


class Change(NamedTuple):
    """What became of a module since a stage last ran."""

    is_harmless: bool  # only comments, docstrings or layout differ
    text: str  # in words


def change(path: str, md5: str, *, root: Path) -> Change:
    """Judge a module's change.

    Args:
        path: of a Python file that differs from what dvc.lock recorded, relative to `root`.
        md5: of its recorded content.
    """
    file = root / path
    if not file.is_file():
        return Change(is_harmless=False, text="is gone")
    since = _since(path, root)
    recorded = _recorded(path, md5, root)
    if recorded is None:
        return Change(is_harmless=False, text=f"{since}; the text it ran with is not in git, so it may matter")
    present = file.read_bytes()
    # a docstring that is read when the code runs is more than prose
    if b"__doc__" not in present + recorded and _same_code(recorded, present, path):
        return Change(is_harmless=True, text=f"{since}; only comments, docstrings or layout differ")
    return Change(is_harmless=False, text=f"{since}; the code differs")


def _same_code(recorded: bytes, present: bytes, path: str) -> bool:
    try:
        return code_text(recorded, where=path) == code_text(present, where=path)
    except (SyntaxError, ValueError):  # half an edit
        return False


def _since(path: str, root: Path) -> str:
    if _git(root, "status", "--porcelain", "--", path):
        return "changed, not committed"
    words = _git(root, "log", "-1", "--format=%h%x00%cs%x00%s", "--", path).decode(errors="replace").strip().split("\0")
    if len(words) != 3:
        return "changed"
    subject = words[2] if len(words[2]) <= 60 else words[2][:59] + "…"
    return f"changed in {words[0]} of {words[1]} ({subject})"


def _recorded(path: str, md5: str, root: Path) -> bytes | None:
    """Return the content with this md5 that any commit held at `path`."""
    listed = _git(root, "rev-list", "--all", "--objects", "--", path).decode(errors="replace").splitlines()
    blobs = [line.split(" ", 1)[0] for line in listed if line.endswith(f" {path}")]
    for blob in blobs:
        content = _git(root, "cat-file", "blob", blob)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            return content
    return None


def _git(root: Path, *arguments: str) -> bytes:
    """Run git; nothing where there is no git or no repository: then nothing is known."""
    command = ["git", "--no-optional-locks", "-c", "core.quotePath=false", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=False).stdout
    except OSError:
        return b""
