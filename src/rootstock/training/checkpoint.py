"""Training states on disk: tensors as safetensors, facts as JSON; a state counts once its JSON is there.

Order of writing: tensors, fsync, rename; JSON with the tensors' sha256, fsync, rename; fsync of the folder. A kill at
any moment leaves the state before. Nothing is unpickled. One writer at a time: the stage's lock sees to it.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rootstock.schema.contract import atomic, fsync_folder, write_json

NUM_KEPT = 2
MOMENTUM = "momentum."
_FILE = re.compile(r"step-(\d{9,})\.(safetensors|json)")


class CheckpointError(ValueError):
    """A training state that is damaged or belongs to another network."""


def save(folder: Path, *, step: int, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write a state durably, then delete all but the last two.

    Args:
        step: optimiser steps taken, >= 0. States of later steps are deleted: they were found damaged, or training
            went back behind them.
        tensors: on any device, of any memory layout.
        facts: JSON values with finite numbers.
    """
    path = folder / f"step-{step:09d}.safetensors"
    data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    content = {"facts": facts, "step": step, "tensors_sha256": hashlib.sha256(data).hexdigest()}
    write_json(path.with_suffix(".json"), content | {"sha256": _sha256_of(content)})
    fsync_folder(folder)
    _prune(folder, step)


def latest(folder: Path) -> tuple[int, dict[str, torch.Tensor], dict] | None:
    """Return step, tensors (on the CPU) and facts of the newest whole state, or None.

    Damaged states are passed over with a warning on stderr that names the file.
    """
    if not folder.is_dir():
        return None
    for step in sorted(_steps(folder, "json"), reverse=True):
        path = folder / f"step-{step:09d}.json"
        try:
            tensors, facts = _read(path, step)
        except CheckpointError as error:
            print(f"warning: {error}; continuing from the state before", file=sys.stderr)
            continue
        return step, tensors, facts
    return None


def optimizer_tensors(optimizer: torch.optim.SGD, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the momentum of each parameter as `momentum.<name>`; none before the first step."""
    states = {name: optimizer.state.get(parameter, {}) for name, parameter in parameters.items()}
    buffers = {name: state.get("momentum_buffer") for name, state in states.items()}
    return {MOMENTUM + name: buffer for name, buffer in buffers.items() if buffer is not None}


def load_optimizer(
    optimizer: torch.optim.SGD, parameters: dict[str, torch.nn.Parameter], tensors: dict[str, torch.Tensor]
) -> None:
    """Set the momentum from what `optimizer_tensors` returned; other names in `tensors` are not looked at.

    Raises:
        ValueError: a momentum of no parameter, or of another shape.
    """
    for key, tensor in tensors.items():
        if not key.startswith(MOMENTUM):
            continue
        parameter = parameters.get(key.removeprefix(MOMENTUM))
        if parameter is None or parameter.shape != tensor.shape:
            wanted = "no such parameter" if parameter is None else tuple(parameter.shape)
            raise CheckpointError(f"state: tensor {key}: found {tuple(tensor.shape)}, wanted {wanted}")
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _read(path: Path, step: int) -> tuple[dict[str, torch.Tensor], dict]:
    """Read a state; each part is compared with its sha256 before it is used."""
    try:
        content = json.loads(path.read_bytes())
        found = content.pop("sha256")
        if found != _sha256_of(content) or content["step"] != step:
            raise CheckpointError(f"{path} is damaged: its sha256 or step does not match")
        tensors_path = path.with_suffix(".safetensors")
        data = tensors_path.read_bytes()
        if hashlib.sha256(data).hexdigest() != content["tensors_sha256"]:
            raise CheckpointError(f"{tensors_path} is damaged: its sha256 is not the one in {path.name}")
        return load_tensors(data), content["facts"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _sha256_of(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _steps(folder: Path, suffix: str) -> set[int]:
    matches = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return {int(match[1]) for match in matches if match and match[2] == suffix}


def _prune(folder: Path, step: int) -> None:
    """Delete what is not one of the last states up to `step`, and what a kill left behind."""
    kept = sorted(past for past in _steps(folder, "json") if past <= step)[-NUM_KEPT:]
    for past in _steps(folder, "json") - set(kept):
        (folder / f"step-{past:09d}.json").unlink()  # first: a JSON file promises its tensors
    for past in _steps(folder, "safetensors") - set(kept):
        (folder / f"step-{past:09d}.safetensors").unlink()
    for temporary in folder.glob(".step-*.tmp"):
        temporary.unlink()
