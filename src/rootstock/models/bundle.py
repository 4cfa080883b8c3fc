"""A model on disk: `weights.safetensors` and `model.json`. The one way to save and to load a model.

Equal weights and facts give equal bytes: no time, no run id, no metadata in the weights (its key order differs from
process to process). Nothing is unpickled.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rootstock.config.model import Arch
from rootstock.config.section import PositiveInt, Section, parse
from rootstock.config.training import Preprocess
from rootstock.models.build import count_parameters, outline
from rootstock.models.classifier import Classifier, Normalise
from rootstock.schema.contract import atomic, read_json, write_json

WEIGHTS, MODEL = "weights.safetensors", "model.json"
MAX_WEIGHTS_BYTES = 4 * 2**30
MAX_MODEL_BYTES = 16 * 2**20


class BundleError(ValueError):
    """A model folder that cannot be used; the message names file, what was found and what is wanted."""


class TrainedOn(Section):
    """What the weights have seen."""

    collection: str
    splits: list[Literal["train", "val"]]
    num_images: PositiveInt


class Facts(Section):
    """What one must know to use the weights."""

    arch: Arch
    num_classes: PositiveInt
    class_names: list[str]  # index = label
    image_size: PositiveInt  # side of the crop the network sees, pixels
    resize_size: PositiveInt  # short side before the crop, pixels
    preprocess: Preprocess
    trained_on: TrainedOn
    num_parameters: PositiveInt

    @model_validator(mode="after")
    def _agree(self) -> "Facts":
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names; wanted num_classes = {self.num_classes}")
        if self.resize_size < self.image_size:
            raise ValueError(f"resize_size {self.resize_size}; wanted >= image_size = {self.image_size}")
        return self


class Model(Section):
    """The content of `model.json`."""

    facts: Facts
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def describe(
    classifier: Classifier, *, class_names: list[str], image_size: int, resize_size: int, trained_on: dict
) -> dict:
    """Return the facts that `save` wants.

    Args:
        class_names: index = label.
        image_size, resize_size: pixels.
        trained_on: {"collection", "splits", "num_images"}.
    """
    return {
        "arch": classifier.network.arch.model_dump(),
        "num_classes": classifier.network.head.out_features,
        "class_names": class_names,
        "image_size": image_size,
        "resize_size": resize_size,
        "preprocess": classifier.normalise.kind,
        "trained_on": trained_on,
        "num_parameters": count_parameters(classifier.network),
    }


def save(folder: Path, classifier: Classifier, facts: dict) -> None:
    """Write a model's folder, `model.json` last: with it the bundle is whole.

    Args:
        facts: what `describe` returns.

    Raises:
        ValueError: facts that do not describe this classifier.
    """
    checked = parse(Facts, facts, where=str(folder / MODEL))
    _compare_facts(checked, classifier, folder / MODEL)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    data = save_tensors(tensors)
    with atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(data)
    write_json(folder / MODEL, {"facts": checked.model_dump(), "weights_sha256": hashlib.sha256(data).hexdigest()})


def _compare_facts(facts: Facts, classifier: Classifier, file: Path) -> None:
    for name, wanted in {
        "arch": classifier.network.arch,
        "num_classes": classifier.network.head.out_features,
        "preprocess": classifier.normalise.kind,
        "num_parameters": count_parameters(classifier.network),
    }.items():
        if getattr(facts, name) != wanted:
            raise BundleError(f"{file}: {name}: found {getattr(facts, name)}, wanted the classifier's {wanted}")


def read_facts(folder: Path) -> dict:
    """Return the facts of a model without reading its weights.

    Raises:
        ValueError: `model.json` is missing, too large, or breaks its contract.
    """
    return _read_model(folder).facts.model_dump()


def load(folder: Path) -> tuple[Classifier, dict]:
    """Read a model onto the CPU, in eval mode.

    Returns:
        The classifier and its facts (see `Facts`).

    Raises:
        ValueError: a file is missing, too large or damaged, or a tensor is missing, unknown, or of another shape or
            type than the facts want; the message names file, tensor, found and wanted.
    """
    model = _read_model(folder)
    facts = model.facts
    classifier = _outline(facts, folder / MODEL)
    _compare_facts(facts, classifier, folder / MODEL)
    path = folder / WEIGHTS
    _check_size(path, MAX_WEIGHTS_BYTES)
    _check_header(path, classifier.state_dict())
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != model.weights_sha256:
        raise BundleError(f"{path}: found sha256 {found}, wanted {model.weights_sha256} of {MODEL}; the bytes changed")
    classifier.load_state_dict(load_tensors(data), assign=True)
    return Classifier(classifier.normalise, classifier.network).eval(), facts.model_dump()


def _read_model(folder: Path) -> Model:
    path = folder / MODEL
    _check_size(path, MAX_MODEL_BYTES)
    return parse(Model, read_json(path), where=str(path))


def _outline(facts: Facts, file: Path) -> Classifier:
    try:
        network = outline(facts.arch, image_size=facts.image_size, num_classes=facts.num_classes)
    except ValueError as error:
        raise BundleError(f"{file}: {error}") from None
    side = facts.image_size if facts.preprocess == "mean-image" else 1
    mean, std = torch.empty(3, side, side, device="meta"), torch.empty(3, 1, 1, device="meta")
    return Classifier(Normalise(facts.preprocess, mean=mean, std=std), network)


def _check_size(path: Path, max_bytes: int) -> None:
    try:
        num_bytes = path.stat().st_size
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; a model's folder holds {MODEL} and {WEIGHTS}") from None
    if num_bytes > max_bytes:
        raise BundleError(f"{path}: found {num_bytes} bytes, wanted <= {max_bytes}")


def _check_header(path: Path, wanted: dict[str, torch.Tensor]) -> None:
    """Compare names, shapes and types before any tensor is read."""
    types = {torch.float32: "F32", torch.int64: "I64"}
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a dict
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except SafetensorError as error:
        raise BundleError(f"{path} is not a whole safetensors file: {error}") from None
    for name, tensor in wanted.items():
        if name not in found:
            raise BundleError(f"{path}: tensor {name}: found none, wanted {tuple(tensor.shape)}")
        if found[name] != (tuple(tensor.shape), types[tensor.dtype]):
            shape, kind = found[name]
            raise BundleError(
                f"{path}: tensor {name}: found {shape} {kind}, wanted {tuple(tensor.shape)} {types[tensor.dtype]}"
            )
    unknown = sorted(found.keys() - wanted.keys())
    if unknown:
        raise BundleError(f"{path}: tensor {unknown[0]}: found {found[unknown[0]][0]}, wanted no such tensor")
