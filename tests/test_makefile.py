"""The Makefile and what prepares .venv: refusals, one installation, recovery. Nothing is installed here."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def prepare(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", repository / "scripts/prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path, prepare: ModuleType, monkeypatch) -> Path:
    """A checkout whose installations are only noted: `commands` of the module."""
    (tmp_path / "requirements.lock").write_text(
        "numpy==2.0 \\\n    --hash=sha256:aa\n    # via x\nsetuptools==84.2.1 \\\n    --hash=sha256:bb \\\n"
        "    --hash=sha256:cc\n    # via y\nzipp==1 \\\n    --hash=sha256:dd\n"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    prepare.commands = []

    def run(command: list) -> None:
        prepare.commands.append([str(part) for part in command])
        if "venv" in prepare.commands[-1]:
            version = ".".join(map(str, sys.version_info[:3]))
            (tmp_path / ".venv/pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")

    monkeypatch.setattr(prepare, "run", run)
    return tmp_path


def test_the_first_call_installs_the_lock_with_its_sums_and_the_second_nothing(checkout, prepare) -> None:
    prepare.prepare(checkout)
    venv, builder, packages, own = prepare.commands
    assert venv[-1] == str(checkout / ".venv")
    assert (checkout / ".venv/builder.txt").read_text().count("--hash") == 2, "setuptools with its sums, and it alone"
    for command in (builder, packages):
        assert {"--require-hashes", "--no-deps"} <= set(command)
    assert {"--no-index", "--no-build-isolation", "-e"} <= set(own)
    assert not (checkout / ".venv/.unfinished").exists()

    prepare.commands.clear()
    prepare.prepare(checkout)
    assert prepare.commands == []


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_another_lock_is_installed_into_the_same_venv(checkout, prepare, changed) -> None:
    prepare.prepare(checkout)
    (checkout / changed).write_text((checkout / changed).read_text() + "# changed\n")
    prepare.commands.clear()
    prepare.prepare(checkout)
    assert len(prepare.commands) == 3
    assert not any("venv" in command for command in prepare.commands)


@pytest.mark.parametrize("fails_at", range(4))
def test_an_interrupted_installation_begins_anew(checkout, prepare, monkeypatch, fails_at) -> None:
    run = prepare.run

    def interrupted(command: list) -> None:
        if len(prepare.commands) == fails_at:
            raise KeyboardInterrupt
        run(command)

    monkeypatch.setattr(prepare, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(checkout)
    (checkout / ".venv/half-written").touch()

    monkeypatch.setattr(prepare, "run", run)
    prepare.commands.clear()
    prepare.prepare(checkout)
    assert len(prepare.commands) == 4, "the whole of it"
    assert not (checkout / ".venv/half-written").exists()


def test_a_venv_of_another_python_is_made_anew(checkout, prepare) -> None:
    prepare.prepare(checkout)
    (checkout / ".venv/pyvenv.cfg").write_text("version = 3.9.1\n")
    (checkout / ".venv/.prepared").write_text("of another Python\n")
    prepare.commands.clear()
    prepare.prepare(checkout)
    assert len(prepare.commands) == 4


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0), (2, 7, 18)])
def test_an_unsupported_python_is_named(prepare, version, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "_runs", lambda name: name == "python3.12")
    found = ".".join(map(str, version))
    with pytest.raises(
        prepare.PrepareError, match=rf"found Python {re.escape(found)} \(/x/python\), wanted 3\.11"
    ) as error:
        prepare.check_python(version, "/x/python")
    assert "PYTHON=python3.12 make" in str(error.value)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 5)])
def test_supported_pythons(prepare, version) -> None:
    prepare.check_python(version, "/x/python")


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_names_the_debian_package(prepare, monkeypatch, missing) -> None:
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(prepare.PrepareError, match="apt-get install python3-venv"):
        prepare.check_venv_module()


def test_a_failed_part_is_said_without_a_traceback(prepare) -> None:
    with pytest.raises(prepare.PrepareError, match="the same command starts it again"):
        prepare.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_pip_is_not_led_elsewhere(prepare, monkeypatch) -> None:
    monkeypatch.setenv("PIP_TARGET", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    prepare.run([sys.executable, "-c", "import os; assert not {'PIP_TARGET', 'PYTHONPATH'} & set(os.environ)"])


# ----------------------------------------------------------------------------------------------------------- Makefile


def make(repository: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=repository, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


def test_help_lists_every_target(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(phony.split()) == targets
    listed = set(re.findall(r"^  make ([a-z-]+) ", make(repository, "help"), re.MULTILINE))
    assert listed == targets - {"prepare"}, "prepare is what the others do by themselves"


def test_choices_reach_configure(repository: Path) -> None:
    said = make(repository, "-n", "repro", "DATA=mine", "RECIPE=tiny", "SET=pretrain.seed=1")
    configure = "rootstock configure data=mine recipe=tiny pretrain.seed=1"
    commands = [line.strip() for line in said.splitlines()]
    order = [configure, "rootstock recheck", "dvc repro", "rootstock summary", "rootstock promote"]
    assert [line for line in commands if line in order] == order


def test_lock_and_makefile_name_no_package_index(repository: Path) -> None:
    assert "://" not in (repository / "requirements.lock").read_text()
    makefile = (repository / "Makefile").read_text()
    assert "index-url " not in makefile.replace("--no-emit-index-url ", "")


def test_the_lock_pins_what_builds_this_package(repository: Path, prepare) -> None:
    lines = prepare.pinned(repository, "setuptools")
    assert re.match(r"setuptools==[\d.]+ ", lines)
    assert lines.count("==") == 1
    assert "--hash=sha256:" in lines
