"""The base of every configuration section, and errors that name the key, the value found and what is allowed."""

import difflib
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError


class Section(BaseModel):
    """A frozen, strict section: unknown keys are errors, nothing is converted silently, nothing has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ParamsError(ValueError):
    """A configuration that cannot be run; the message names key, value and what is allowed."""


PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]  # YAML's 0 and 1 are integers: strict floats accept them
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]


def parse(model: type[Section], value: Any, *, where: str) -> Any:
    """Validate `value` against `model`.

    Args:
        where: what to call the value in errors, such as `params.yaml: finetune`.

    Raises:
        ParamsError: every problem on its own line.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ParamsError("\n".join(_describe(item, model, value, where) for item in error.errors())) from None


def _describe(item: dict, model: type[Section], value: Any, where: str) -> str:
    path = _keys(item["loc"], value)
    key = ".".join([where, *path])
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1], value)
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
        return f"{key}: unknown key (value {item['input']!r}); {hint}"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    if isinstance(item["input"], dict):  # a rule across keys: its own words name those that disagree
        return f"{key}: {item['msg'].removeprefix('Value error, ')}"
    return f"{key}: {item['input']!r} is not allowed: {item['msg'][0].lower() + item['msg'][1:]}"


def _keys(loc: tuple, value: Any) -> list[str]:
    """Drop the parts of pydantic's location that name a choice in a union rather than a key of the file."""
    path = []
    for number, part in enumerate(loc):
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if inside:
            value = value[part]
        if inside or number == len(loc) - 1:
            path.append(str(part))
    return path


def _known_keys(model: Any, path: list[str], value: Any) -> list[str]:
    """Keys of the section reached by `path`; of alternatives, those of the one that the section's values choose."""
    models = [model]
    for part in path:
        models = [inner for candidate in models for inner in _inner_models(candidate, part)] or models
        value = value.get(part, {}) if isinstance(value, dict) else {}
    chosen = [candidate for candidate in models if _is_chosen(candidate, value)] or models
    return sorted({name for candidate in chosen for name in candidate.model_fields})


def _is_chosen(model: Any, value: Any) -> bool:
    """Whether the values of a section (its `collection`, `name`, `kind`) allow this alternative."""
    options = {name: field.annotation for name, field in model.model_fields.items()}
    return all(
        value[name] in get_args(option)
        for name, option in options.items()
        if get_origin(option) is Literal and name in value
    )


def _inner_models(model: Any, part: str) -> list[Any]:
    field = model.model_fields.get(part)
    if field is None:
        return []
    found: list[Any] = []
    pending = [field.annotation]
    while pending:
        current = pending.pop()
        if isinstance(current, type) and issubclass(current, RootModel):
            pending.append(current.model_fields["root"].annotation)
        elif isinstance(current, type) and issubclass(current, BaseModel):
            found.append(current)
        pending.extend(getattr(current, "__args__", ()))
    return found
