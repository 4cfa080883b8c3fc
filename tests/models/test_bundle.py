"""Models on disk: equal bytes for equal weights, and an error that names what is wrong with any other file."""

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rootstock.models import bundle
from rootstock.models.build import build
from rootstock.models.classifier import Classifier, Normalise

SIZE, NUM_CLASSES = 8, 3


def make(arch, *, kind="standardise", seed=0, image_size=SIZE) -> Classifier:
    normalise = Normalise.fit(
        kind,
        mean=[0.5, 0.4, 0.3],
        std=[0.2, 0.2, 0.3],
        mean_image=np.full((image_size, image_size, 3), 0.25),
        image_size=image_size,
    )
    return Classifier(normalise, build(arch, image_size=image_size, num_classes=NUM_CLASSES, seed=seed))


def describe(classifier: Classifier, image_size=SIZE) -> dict:
    return bundle.describe(
        classifier,
        class_names=["rose", "tulip", "Gänseblümchen"],
        image_size=image_size,
        resize_size=image_size + 2,
        trained_on={"collection": "demo", "splits": ["train", "val"], "num_images": 12},
    )


@pytest.fixture
def folder(tmp_path, small_resnet) -> Path:
    classifier = make(small_resnet)
    bundle.save(tmp_path / "model", classifier, describe(classifier))
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("which", "kind", "image_size"),
    [("small_resnet", "standardise", 8), ("small_resnet", "mean-image", 8), ("narrow_alexnet", "channel-mean", 67)],
)
def test_round_trip_is_exact(tmp_path, request, which, kind, image_size):
    classifier = make(request.getfixturevalue(which), kind=kind, image_size=image_size).eval()
    facts = describe(classifier, image_size)
    before = copy.deepcopy(facts)
    bundle.save(tmp_path, classifier, facts)
    loaded, read = bundle.load(tmp_path)
    assert facts == before == read == bundle.read_facts(tmp_path)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    ours, theirs = classifier.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.stride() == theirs[name].stride(), name
    images = torch.randint(0, 256, (2, image_size, image_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(classifier(images), loaded(images))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_bundle import describe, make
from rootstock.config.model import ResNetArch
from rootstock.models import bundle
classifier = make(ResNetArch(name="resnet18", stem="small", width=8, zero_init_last_bn=True))
bundle.save(Path(sys.argv[1]), classifier, describe(classifier))
"""


def test_bytes_are_the_same_in_another_process(tmp_path, folder):
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-c", PROGRAM, str(other), str(Path(__file__).parent)], check=True)
    for name in (bundle.WEIGHTS, bundle.MODEL):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_bytes_do_not_depend_on_memory_layout(tmp_path, folder, small_resnet):
    classifier = make(small_resnet)
    classifier.network.to(memory_format=torch.contiguous_format)
    bundle.save(tmp_path / "other", classifier, describe(classifier))
    assert (folder / bundle.WEIGHTS).read_bytes() == (tmp_path / "other" / bundle.WEIGHTS).read_bytes()


def test_weights_hold_no_metadata(folder):
    data = (folder / bundle.WEIGHTS).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "__metadata__" not in header


def rewrite(folder: Path, change) -> None:
    """Change the tensors and give them a fitting sum, so that only the tensors are wrong."""
    tensors = load_file(folder / bundle.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / bundle.WEIGHTS)
    model = json.loads((folder / bundle.MODEL).read_text())
    model["weights_sha256"] = hashlib.sha256((folder / bundle.WEIGHTS).read_bytes()).hexdigest()
    (folder / bundle.MODEL).write_text(json.dumps(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("network.layer4.1.bn2.bias"),
            "tensor network.layer4.1.bn2.bias: found none, wanted (64,)",
        ),
        (
            lambda tensors: tensors.update(extra=torch.zeros(2, 3)),
            "tensor extra: found (2, 3), wanted no such tensor",
        ),
        (
            lambda tensors: tensors.update({"network.fc.weight": torch.zeros(4, 64)}),
            "tensor network.fc.weight: found (4, 64) F32, wanted (3, 64) F32",
        ),
        (
            lambda tensors: tensors.update({"network.fc.bias": torch.zeros(3, dtype=torch.float64)}),
            "tensor network.fc.bias: found (3,) F64, wanted (3,) F32",
        ),
        (
            lambda tensors: tensors.update({"normalise.mean": torch.zeros(3, 8, 8)}),
            "tensor normalise.mean: found (3, 8, 8) F32, wanted (3, 1, 1) F32",
        ),
    ],
)
def test_a_wrong_tensor_is_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(bundle.BundleError) as caught:
        bundle.load(folder)
    assert str(caught.value) == f"{folder / bundle.WEIGHTS}: {message}"


def test_a_flipped_bit_is_found(folder):
    path = folder / bundle.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-100] ^= 4  # in a weight: the file is still a well-formed one
    path.write_bytes(data)
    with pytest.raises(bundle.BundleError, match=r"weights.safetensors: found sha256 .* the bytes changed"):
        bundle.load(folder)


@pytest.mark.parametrize("num_bytes", [0, 7, 100, -1])
def test_a_truncated_file_is_named(folder, num_bytes):
    path = folder / bundle.WEIGHTS
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(bundle.BundleError, match=r"weights.safetensors is not a whole safetensors file"):
        bundle.load(folder)


def test_a_header_that_promises_too_much_is_refused(folder):
    path = folder / bundle.WEIGHTS
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(bundle.BundleError, match="is not a whole safetensors file"):
        bundle.load(folder)


def test_a_pickle_is_not_opened(folder):
    (folder / bundle.WEIGHTS).write_bytes(pickle.dumps({"weights": _Explodes()}))
    with pytest.raises(bundle.BundleError, match="is not a whole safetensors file"):
        bundle.load(folder)


class _Explodes:
    def __reduce__(self):
        return (pytest.exit, ("unpickled",))


@pytest.mark.parametrize(("name", "cap"), [(bundle.WEIGHTS, "MAX_WEIGHTS_BYTES"), (bundle.MODEL, "MAX_MODEL_BYTES")])
def test_a_file_above_the_cap_is_not_read(folder, monkeypatch, name, cap):
    monkeypatch.setattr(bundle, cap, 50)
    num_bytes = (folder / name).stat().st_size
    with pytest.raises(bundle.BundleError) as caught:
        bundle.load(folder)
    assert str(caught.value) == f"{folder / name}: found {num_bytes} bytes, wanted <= 50"


@pytest.mark.parametrize("name", [bundle.WEIGHTS, bundle.MODEL])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(bundle.BundleError) as caught:
        bundle.load(folder)
    assert str(caught.value) == f"{folder / name} is missing; a model's folder holds model.json and weights.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 4}, "3 class_names; wanted num_classes = 4"),
        ({"image_size": 11}, "resize_size 10; wanted >= image_size = 11"),
        ({"num_parameters": 5}, "num_parameters: found 5, wanted the classifier's"),
        ({"preprocess": "none"}, "facts.preprocess: 'none' is not allowed"),
        ({"colour": "red"}, r"facts.colour: unknown key \(value 'red'\)"),
        (
            {"trained_on": {"collection": "demo", "splits": ["test"], "num_images": 1}},
            "facts.trained_on.splits.0: 'test'",
        ),
        ({"num_classes": "3"}, "facts.num_classes: '3' is not allowed"),
    ],
)
def test_a_wrong_fact_is_named(folder, change, message):
    path = folder / bundle.MODEL
    model = json.loads(path.read_text())
    model["facts"] |= change
    path.write_text(json.dumps(model))
    with pytest.raises(ValueError, match=message) as caught:
        bundle.load(folder)
    assert str(path) in str(caught.value)


def test_facts_of_an_impossible_network_are_refused(tmp_path, narrow_alexnet):
    classifier = make(narrow_alexnet, image_size=67)
    bundle.save(tmp_path, classifier, describe(classifier, 67))
    model = json.loads((tmp_path / bundle.MODEL).read_text())
    model["facts"]["image_size"] = 20
    (tmp_path / bundle.MODEL).write_text(json.dumps(model))
    with pytest.raises(bundle.BundleError, match=r"model.json: alexnet: found image_size 20; wanted >= 67"):
        bundle.load(tmp_path)


def test_text_that_is_not_json_is_named(folder):
    (folder / bundle.MODEL).write_text("{")
    with pytest.raises(ValueError, match=r"model.json is not JSON"):
        bundle.load(folder)


def test_facts_of_another_classifier_are_not_saved(tmp_path, small_resnet):
    classifier = make(small_resnet)
    facts = describe(classifier) | {"preprocess": "channel-mean"}
    with pytest.raises(bundle.BundleError, match="preprocess: found channel-mean, wanted the classifier's standardise"):
        bundle.save(tmp_path / "model", classifier, facts)
    assert not (tmp_path / "model").exists()


def test_a_kill_between_the_two_files_leaves_no_mixed_model(folder, small_resnet, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "write_json", killed)
    classifier = make(small_resnet, seed=1)
    with pytest.raises(KeyboardInterrupt):
        bundle.save(folder, classifier, describe(classifier))
    with pytest.raises(bundle.BundleError, match="the bytes changed"):
        bundle.load(folder)
