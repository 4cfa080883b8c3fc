"""conf/ into params.yaml: composed, validated, with the choice noted in its header."""

import os
import shlex
from pathlib import Path
from typing import Any

from rootstock.config.compose import compose
from rootstock.config.load import read_yaml, write_yaml

HEADER = "Generated from conf/ by `make configure`: edit conf/, not this file."
CHOICE = "Choice: "  # a second line of the header; absent for the defaults of conf/config.yaml
ABSENT = object()


def configure(path: Path, *, conf: Path, overrides: list[str]) -> list[str]:
    """Write params.yaml from conf/.

    Args:
        path: params.yaml; it may be missing or broken.
        overrides: in Hydra's grammar: `data=mine`, `pretrain.training.epochs=20`.

    Returns:
        What changed: a line each key, `pretrain.training.epochs: 12 → 20`. Empty when nothing did, or the file is new.

    Raises:
        ParamsError: conf/ and the choice make no valid configuration; params.yaml stays as it was.
    """
    composed = compose(conf, overrides)
    before = read_yaml(path) if path.is_file() else {}
    is_default = not overrides or composed == compose(conf, [])
    header = HEADER + ("" if is_default else f"\n{CHOICE}{shlex.join(overrides)}")
    temporary = path.with_name(f"{path.name}.tmp")
    write_yaml(temporary, composed, header=header)
    os.replace(temporary, path)
    return differences(before, composed) if before else []


def differences(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return what differs between two nested values: a line each key, `pretrain.training.epochs: 12 → 20`."""
    old, new = _leaves(before, prefix), _leaves(after, prefix)
    pairs = [(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in dict.fromkeys([*old, *new])]
    return [f"{key}: {_text(a)} → {_text(b)}" for key, a, b in pairs if a is ABSENT or a != b]


def choice(path: Path) -> list[str]:
    """Return the overrides noted in the header of params.yaml."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if line.startswith(f"# {CHOICE}"):
            return shlex.split(line.removeprefix(f"# {CHOICE}"))
    return []


def command(overrides: list[str]) -> str:
    """Return the command of the README that makes this choice."""
    named = {"data": "DATA", "recipe": "RECIPE", "arch": "ARCH"}
    words, others = ["make repro"], []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in named:
            words.append(f"{named[key]}={shlex.quote(value)}")
        else:
            others.append(override)
    return " ".join([*words, *([f"SET={shlex.quote(' '.join(others))}"] if others else [])])


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _text(value: Any) -> str:
    return "absent" if value is ABSENT else "null" if value is None else str(value)
