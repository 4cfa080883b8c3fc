"""Install the benchmarks' peers, each into an environment of its own under .bench/, from pinned versions.

    python benchmarks/install_peers.py            (what `make bench-peers` calls)

A peer that cannot be installed is left out, with its reason in .bench/<peer>.failed.txt and on the screen; the
benchmarks' tables repeat it. Some peers build on our own .venv, which has the same torch for all: less to install, and
the same decoder libraries underneath. torchvision, webdataset and numpy need no environment: ours has them.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import record  # beside this script

ENVIRONMENTS = record.ROOT / ".bench"
REQUIREMENTS = record.ROOT / "benchmarks/requirements"
ON_OURS = {"timm", "ffcv"}  # they need torch
# FFCV is built here, from C++: Debian's libopencv-dev, libturbojpeg0-dev and pkg-config have to be installed
BUILT = {"ffcv"}


def main() -> None:
    """Install what is not there yet."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    for requirements in sorted(REQUIREMENTS.glob("*.txt")):
        peer = requirements.stem
        failed = ENVIRONMENTS / f"{peer}.failed.txt"
        failed.unlink(missing_ok=True)
        try:
            done = install(peer, requirements)
        except subprocess.CalledProcessError as error:
            lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
            failed.write_text(f"could not be installed: {(lines or ['no message'])[-1].strip()[:300]}\n")
            print(f"{peer}: {failed.read_text().strip()}")
        else:
            print(f"{peer}: {'installed' if done else 'is installed'}")


def install(peer: str, requirements: Path) -> bool:
    """Make a peer's environment; returns False when it is there already.

    Raises:
        CalledProcessError: an installer failed.
    """
    folder = ENVIRONMENTS / peer
    stamp = folder / "installed.txt"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    if folder.exists():
        shutil.rmtree(folder)
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps"]
    if peer in ON_OURS:
        below = Path(sysconfig.get_path("purelib"))
        inside = folder / below.relative_to(sys.prefix)
        (inside / "below.pth").write_text(f"{below}\n")
    if peer in BUILT:
        builders = [line for line in wanted.splitlines() if line.startswith(("setuptools==", "wheel=="))]
        run(*pip, *builders)
        pip.append("--no-build-isolation")
    run(*pip, "-r", requirements)
    stamp.write_text(wanted)
    return True


def run(*command: object) -> None:
    """Run a command; its words are kept for the reason."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
