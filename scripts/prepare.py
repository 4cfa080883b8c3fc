"""Make .venv from requirements.lock, once; called by every target of the Makefile.

Standard library only, and in words that an old Python still reads: it runs before anything is installed, and the
Python that runs it may be one that we refuse.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
LOCK, PROJECT = "requirements.lock", "pyproject.toml"
# where pip would put packages instead of .venv, and what would shadow them
DISTURBING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class PrepareError(Exception):
    """What a person can mend; the message says how."""


def check_python(version: tuple, executable: str) -> None:
    """Refuse a Python that the pinned packages do not support.

    Raises:
        PrepareError: naming what was found and which others are installed.
    """
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    others = [name for name in names if _runs(name)]
    hint = f"PYTHON={others[-1]} make …" if others else "install one, then PYTHON=python3.12 make …"
    found = ".".join(map(str, version[:3]))
    raise PrepareError(f"found Python {found} ({executable}), wanted 3.11, 3.12 or 3.13: {hint}")


def _runs(name: str) -> bool:
    # to be found is not enough: a version manager's stand-in may have nothing behind it
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return shutil.which(name) is not None and subprocess.run([name, "-c", ""], **quiet).returncode == 0


def check_venv_module() -> None:
    """Refuse a Python without venv, which Debian packs apart.

    Raises:
        PrepareError: naming the package.
    """
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise PrepareError(
            f"{sys.executable} cannot make virtual environments: Debian and Ubuntu pack that apart, in python3-venv\n"
            "  sudo apt-get install python3-venv\n"
            f"(python3.{sys.version_info[1]}-venv if it is not the system's python3); then run the same command again"
        )


def fingerprint(root: Path) -> str:
    """Return what a finished .venv notes: the sha256 of what it was made from, its folder, and the Python it is for.

    Scripts in a .venv name their interpreter by its absolute path: a checkout that moved needs a new one.
    """
    digest = hashlib.sha256()
    for name in (LOCK, PROJECT):
        digest.update((root / name).read_bytes())
    digest.update(str(root.resolve()).encode())
    return f"{digest.hexdigest()} python{sys.version_info[0]}.{sys.version_info[1]}\n"


def is_prepared(root: Path) -> bool:
    """Whether .venv was finished, for this lock and this Python."""
    stamp = root / ".venv/.prepared"
    return stamp.is_file() and stamp.read_text() == fingerprint(root)


def is_reusable(venv: Path) -> bool:
    """Whether packages can be added to .venv: no installation was interrupted in it, and it is of this Python."""
    if (venv / ".unfinished").exists() or not (venv / "pyvenv.cfg").is_file():
        return False
    found = re.search(r"^version\w* *= *(\d+)\.(\d+)", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)
    return found is not None and tuple(map(int, found.groups())) == tuple(sys.version_info[:2])


def pinned(root: Path, name: str) -> str:
    """Return a package's lines in the lock, with its sums."""
    found = re.search(rf"^{re.escape(name)}==.*?(?=^[a-z0-9]|\Z)", (root / LOCK).read_text(), re.M | re.S | re.I)
    if found is None:
        raise PrepareError(f"{LOCK}: found no {name}, which builds the package; `make lock` writes it")
    return found.group()


def run(command: list) -> None:
    """Run a part of the installation.

    Raises:
        PrepareError: it failed; its own words stand above.
    """
    environment = {key: value for key, value in os.environ.items() if key not in DISTURBING}
    environment.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    done = subprocess.run([str(part) for part in command], env=environment, check=False)
    if done.returncode:
        raise PrepareError("the installation failed, as said above; the same command starts it again")


def install(root: Path) -> None:
    """Make .venv. An interruption at any point leaves a note in it, and the next call begins anew."""
    venv = root / ".venv"
    # the real interpreter, looked up while it can be: ours may be that of a .venv about to go
    python = os.path.realpath(sys.executable)
    if venv.exists() and not is_reusable(venv):
        print(".venv is unfinished or of another Python: making it anew", flush=True)
        shutil.rmtree(str(venv))
    num_packages = len(re.findall(r"^[A-Za-z0-9][\w.-]*==", (root / LOCK).read_text(), re.MULTILINE))
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"preparing .venv (Python {version}, up to {num_packages} packages, once): some minutes", flush=True)
    venv.mkdir(exist_ok=True)
    (venv / ".unfinished").touch()
    if (venv / ".prepared").exists():
        (venv / ".prepared").unlink()
    if not (venv / "pyvenv.cfg").is_file():
        run([python, "-m", "venv", venv])
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    pip = [venv / "bin/python", "-I", "-m", "pip", "install", "--no-deps", *quiet]
    # Some packages are built here. Their builder comes first, pinned: pip would fetch any version of it for each.
    (venv / "builder.txt").write_text(pinned(root, "setuptools"))
    run([*pip, "--require-hashes", "--only-binary=:all:", "-r", venv / "builder.txt"])
    run([*pip, "--require-hashes", "--no-build-isolation", "--use-pep517", "-r", root / LOCK])
    run([*pip, "--no-index", "--no-build-isolation", "-e", root])
    (venv / ".prepared").write_text(fingerprint(root))
    (venv / ".unfinished").unlink()


def prepare(root: Path) -> None:
    """Install what is missing; return at once when nothing is.

    Raises:
        PrepareError: what a person can mend.
    """
    if is_prepared(root) and not (root / ".venv/.unfinished").exists():
        return
    check_python(sys.version_info, sys.executable)
    check_venv_module()
    (root / ".rootstock").mkdir(exist_ok=True)
    with open(str(root / ".rootstock/prepare.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("waiting for another installation of .venv", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_prepared(root):
            install(root)


def main() -> None:
    """Prepare the checkout that this script lies in."""
    try:
        prepare(Path(__file__).resolve().parent.parent)
    except (PrepareError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command starts again")


if __name__ == "__main__":
    main()
