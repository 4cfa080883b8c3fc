"""The one door to YAML: read a section of `params.yaml`, parsed as YAML 1.2 exactly as DVC parses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rootstock.config.section import ParamsError, Section, parse

AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML file.

    Raises:
        ParamsError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; `make configure` writes it") from None
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    """Parse YAML that is not on disk; `where` names it in errors.

    Raises:
        ParamsError: it is not YAML, or is not a mapping.
    """
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{where} is not YAML: {error}") from None
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: found {type(value).__name__}, wanted a mapping of sections")
    return value


def write_yaml(path: Path, value: dict[str, Any], *, header: str) -> None:
    """Write `value` in block style under a comment."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    with open(path, "w") as file:
        file.writelines(f"# {line}\n" for line in header.splitlines())
        yaml.dump(value, file)


def load_section(path: Path, model: type[AnySection], *names: str) -> AnySection:
    """Read the section reached by `names` and validate it.

    Raises:
        ParamsError: the section is missing or breaks its model.
    """
    value: Any = read_yaml(path)
    for depth, name in enumerate(names):
        if not isinstance(value, dict) or name not in value:
            raise ParamsError(f"{path}: {'.'.join(names[: depth + 1])}: missing section")
        value = value[name]
    return parse(model, value, where=f"{path}: {'.'.join(names)}")


@contextmanager
def edit_yaml(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a YAML file's content for changes in place and write it back; comments and order stay."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    content = yaml.load(path.read_text())
    yield content
    with open(path, "w") as file:
        yaml.dump(content, file)
