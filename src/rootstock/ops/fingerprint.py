"""What a result was made from: hashes of inputs in DVC's own form, of code and parameters; revision and packages."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

CHUNK_BYTES = 1 << 20
GIT_SECONDS = 10.0
# what a reproduction itself rewrites: it says nothing about the code being other than the revision's
MADE_BY_REPRO = ("dvc.lock", "params.yaml", "reports", "models/champions")


def dvc_hash(path: Path) -> str:
    """Hash a file or folder as DVC does, so that the value can be found in `dvc.lock`.

    Returns:
        For a file the md5 of its bytes; for a folder the md5 of DVC's sorted JSON listing, with `.dir` appended.

    Raises:
        FileNotFoundError: there is nothing at `path`.

    Source: dvc-data 3.18, hashfile/tree.py (`Tree.as_bytes`) and hashfile/build.py.
    """
    if path.is_file():
        return _file_md5(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: found nothing, wanted a file or folder to hash")
    files = [Path(root) / name for root, _, names in os.walk(path, followlinks=True) for name in names]
    rows = [{"md5": _file_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    listing = json.dumps(sorted(rows, key=lambda row: row["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def code_hash(modules: list[Path]) -> str:
    """Hash what modules do: their syntax trees without docstrings, so neither comments nor layout nor prose matter.

    Args:
        modules: Python files, in any order; they are taken sorted by path, so a checkout elsewhere gives the same hash.

    Returns:
        64 hexadecimal digits; they change with Python's minor version, whose trees differ.
    """
    digest = hashlib.sha256()
    for path in sorted(modules):
        text = code_text(path.read_bytes(), where=str(path)).encode()
        digest.update(len(text).to_bytes(8, "little"))  # so that code cannot move across a file's border unseen
        digest.update(text)
    return digest.hexdigest()


def code_text(source: bytes, *, where: str) -> str:
    """Return a module's syntax tree without docstrings as text: equal for modules that do the same in the same words.

    Args:
        where: names it in errors.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source, filename=where)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return ast.dump(tree)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]


def state_name(params: dict, inputs: dict[str, str], code: str) -> str:
    """Name a training state's folder by everything its result depends on.

    Args:
        params: the stage's parameters, JSON values.
        inputs: file -> hash, as `dvc_hash` gives it.
        code: what `code_hash` gave.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps([params, inputs, code], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision(folder: Path) -> dict:
    """Return `git_revision` (40 digits) and `git_dirty`; both None without git or a first commit.

    Dirty: a tracked file differs from the revision, apart from those that a reproduction rewrites (`MADE_BY_REPRO`).
    """
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return {"git_revision": None, "git_dirty": None}
    excluded = [f":(exclude,top){name}" for name in MADE_BY_REPRO]
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *excluded)
    return {"git_revision": head, "git_dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # without optional locks: a status in a stage must not fail a person's git command at the same moment
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(*, folder: Path, lock: Path) -> dict:
    """Describe the software a result was made with.

    Args:
        folder: the checkout that runs; in a queued experiment its copy, not the person's own.
        lock: the file of pinned requirements.

    Returns:
        python, platform, rootstock, torch and mlflow versions (None where not installed), cuda (the version torch was
        built for, None where no GPU is usable), lock_sha256 (None without a lock), git_revision, git_dirty.
    """
    import torch  # its CUDA version is nowhere else

    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "rootstock": _version("rootstock"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "mlflow": _version("mlflow"),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        **revision(folder),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
