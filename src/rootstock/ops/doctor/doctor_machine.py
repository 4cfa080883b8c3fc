"""What the doctor checks of environment, machine and disk."""

import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import rootstock
from rootstock import layout
from rootstock.ops import hardware
from rootstock.ops.doctor.finding import FAIL, OK, WARN, Finding
from rootstock.ops.reproduction import installed

GIGABYTE = 1e9
LITTLE_MEMORY = 2e9  # bytes; torch, MLflow and DVC together take 1.5e9
LITTLE_SPACE = 1e9  # bytes; the demo's outputs, cache and store take 0.2e9, its packages far more
FEW_INODES = 20_000
PROBE_BYTES = 1 << 16
MAX_NAMED = 4
CGROUP = Path("/sys/fs/cgroup")
VENV = Path(".venv")


def python() -> Iterator[Finding]:
    """Whether this Python is one that the project supports."""
    from packaging.specifiers import SpecifierSet

    wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"]
    version = ".".join(map(str, sys.version_info[:3]))
    if SpecifierSet(wanted).contains(version):
        yield Finding("environment", "python", OK, f"Python {version}")
    else:
        remedy = "rm -r .venv, then PYTHON=python3.12 make repro"
        yield Finding("environment", "python", FAIL, f"found Python {version}, wanted {wanted}", remedy)


def packages() -> Iterator[Finding]:
    """Whether the pinned packages are installed."""
    if not layout.LOCK.is_file():
        yield Finding("environment", "packages", FAIL, f"{layout.LOCK} is missing", f"git checkout -- {layout.LOCK}")
        return
    differences = installed.differences(layout.LOCK.read_text())
    if not differences:
        yield Finding("environment", "packages", OK, f"packages are those of {layout.LOCK}")
        return
    missing = [line for line in differences if ": found none" in line]
    shown = "; ".join([*missing, *(line for line in differences if line not in missing)][:MAX_NAMED])
    more = f" and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
    text = f"{len(differences)} packages are not those of {layout.LOCK}: {shown}{more}"
    remedy = "rm -f .venv/.prepared && make prepare    (other packages may give other results)"
    yield Finding("environment", "packages", FAIL if missing else WARN, text, remedy)


def torch_pair() -> Iterator[Finding]:
    """Whether torch can be imported, and torchvision is the one made for it."""
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # a library that does not fit says it in any of these ways
        text = f"torch and torchvision do not import together: {error}"
        remedy = "rm -f .venv/.prepared && make prepare    (both come from the same index, never a CPU wheel of one)"
        yield Finding("environment", "torch", FAIL, text, remedy)
        return
    text = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    yield Finding("environment", "torch", OK, text)


def checkout() -> Iterator[Finding]:
    """Whether interpreter and library are this checkout's own."""
    venv = VENV.resolve()
    if Path(sys.prefix).resolve() == venv:
        yield Finding("environment", "interpreter", OK, f"interpreter of {venv}")
    else:
        text = f"found the interpreter of {sys.prefix}, wanted that of {venv}"
        yield Finding("environment", "interpreter", WARN, text, "PATH=$PWD/.venv/bin:$PATH, or use make, which does so")
    package, wanted = Path(rootstock.__file__).resolve().parent, Path("src/rootstock").resolve()
    if package == wanted:
        yield Finding("environment", "library", OK, f"library of {wanted}")
    else:
        remedy = "rm -r .venv && make prepare    (a project that was moved or copied needs a .venv of its own)"
        yield Finding("environment", "library", FAIL, f"found the library of {package}, wanted {wanted}", remedy)


def cores() -> Iterator[Finding]:
    """How many cores there are for this process, and whether the settings fit them."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_cores()
    text = f"{num_cores} cores" + (f", limited to the time of {limit:g} (cgroup)" if limit else "")
    yield Finding("machine", "cores", OK, text)
    for name in ("ROOTSTOCK_THREADS", "ROOTSTOCK_WORKERS", "ROOTSTOCK_PROCESSES"):
        given = os.environ.get(name)
        if not given:
            continue
        if not given.isdecimal() or int(given) < 1:
            text = f"{name}: found {given!r}, wanted a number of 1 or more"
            yield Finding("machine", name, FAIL, text, f"unset {name}")
        elif int(given) > (limit or num_cores):
            text = f"{name} is {given}: more than the {limit or num_cores:g} cores"
            yield Finding("machine", name, WARN, text, f"unset {name}, or {name}={max(1, int(limit or num_cores))}")


def _cgroup_cores() -> float | None:
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):  # no cgroup of version 2
        return None
    return None if quota == "max" else int(quota) / int(period)


def memory() -> Iterator[Finding]:
    """How much memory a training could take now."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and used is not None and limit < total:
        total, free = limit, min(free, limit - used)
    text = f"{free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB memory free"
    if free >= LITTLE_MEMORY:
        yield Finding("machine", "memory", OK, text)
    else:
        remedy = "end other programs, or a smaller microbatch: SET=pretrain.training.microbatch_size=…"
        yield Finding("machine", "memory", WARN, f"{text}: less than {LITTLE_MEMORY / GIGABYTE:g} GB", remedy)


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((CGROUP / name).read_text())
    except (OSError, ValueError):  # none, or "max"
        return None


def gpus() -> Iterator[Finding]:
    """Whether torch sees the GPUs that the driver has."""
    try:
        import torch
    except (ImportError, OSError):  # said by torch_pair
        return
    described = [gpu.describe() for gpu in hardware.gpus()]
    num_torch = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = os.environ.get("ROOTSTOCK_DEVICE")
    names = ", ".join(f"{gpu['name']} ({gpu['memory_gb']:.0f} GB)" for gpu in described)
    if wanted == "cuda" and num_torch == 0:
        text = "ROOTSTOCK_DEVICE is cuda and torch sees no GPU"
        yield Finding("machine", "gpu", FAIL, text, "unset ROOTSTOCK_DEVICE, or mend the driver: nvidia-smi")
    elif num_torch != len(described):
        built = torch.version.cuda or "no CUDA"
        text = f"the driver has {len(described)} GPUs ({names}), torch (built for {built}) sees {num_torch}"
        yield Finding(
            "machine", "gpu", WARN, text, "compare nvidia-smi's CUDA version with torch's; see CUDA_VISIBLE_DEVICES"
        )
    elif described:
        yield Finding("machine", "gpu", OK, f"GPU: {names}, driver {described[0]['driver']}")
    else:
        yield Finding("machine", "gpu", OK, "no GPU: everything runs on the CPU")


def space() -> Iterator[Finding]:
    """Whether the folders that we write to can be written and have room for the outputs once more."""
    wanted = max(LITTLE_SPACE, _outputs_bytes())
    folders = {"project": Path(), "DVC's cache": _cache(), "archives": layout.own_archives("")}
    seen: set[int] = set()
    for name, folder in folders.items():
        place = _existing(folder)
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        yield _space(name, place, wanted)
    try:
        with tempfile.NamedTemporaryFile(dir=".", prefix=".doctor-") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        text = f"{Path.cwd()} cannot be written: {error.strerror}"
        yield Finding(
            "disk", "writable", FAIL, text, "make room, or look at owner, quota and mount of that folder: df ."
        )
    else:
        yield Finding("disk", "writable", OK, f"{Path.cwd()} can be written")


def _space(name: str, place: Path, wanted: float) -> Finding:
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    text = f"{free / GIGABYTE:.1f} GB free for {name}"
    if free < wanted:
        text += f"; the outputs made anew may take {wanted / GIGABYTE:.1f} GB"
        return Finding("disk", name, WARN, text, "make room; `dvc gc --workspace` drops what no present output uses")
    # a file system without a fixed number says 0
    if found.f_files and found.f_favail < FEW_INODES:
        text = f"{name}: {found.f_favail} more files can be made there, wanted {FEW_INODES}"
        return Finding("disk", name, WARN, text, "remove small files: df -i")
    return Finding("disk", name, OK, text)


def _outputs_bytes() -> int:
    folders = [Path("data", name) for name in ("raw", "manifest", "stats", "shards")] + [Path("models")]
    files = (path for folder in folders if folder.is_dir() for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())


def _cache() -> Path:
    from dvc.config import Config

    return Path(Config.from_cwd()["cache"].get("dir") or ".dvc/cache")


def links() -> Iterator[Finding]:
    """How DVC's cache and the workspace share bytes here."""
    from dvc.config import Config
    from dvc_objects.fs.generic import test_links
    from dvc_objects.fs.local import LocalFileSystem

    kinds = Config.from_cwd()["cache"].get("type") or ["reflink", "copy"]
    cache = _existing(_cache())
    local = LocalFileSystem()
    working = test_links(kinds, local, str(cache), local, str(Path.cwd() / "probe"))
    if working and working[0] != "copy":
        yield Finding("disk", "links", OK, f"DVC's cache and the workspace share bytes by {working[0]}")
        return
    text = f"none of {', '.join(kinds)} but copy works between {cache} and the workspace: outputs take twice the room"
    yield Finding("disk", "links", WARN, text, "put cache and project on one file system: dvc cache dir --local FOLDER")
