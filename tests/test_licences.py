"""No package under the AGPL enters the lock: whoever serves a model would have to publish their service."""

import importlib.metadata
import re
from pathlib import Path

import pytest

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
AGPL = re.compile(r"\bAGPL|affero", re.IGNORECASE)
BANNED = {"albumentationsx"}  # AGPL, and one letter from the MIT package we use


def locked() -> set[str]:
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", LOCK.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def licence_texts(metadata: importlib.metadata.PackageMetadata) -> list[str]:
    fields = ("License", "License-Expression", "Classifier")
    return [
        text for field in fields for text in metadata.get_all(field, []) if field != "Classifier" or "License" in text
    ]


def test_the_lock_is_read() -> None:
    assert {"torch", "mlflow", "dvc", "albumentations"} <= locked()


def test_no_banned_package_is_locked() -> None:
    assert not locked() & BANNED


def test_no_installed_package_of_the_lock_is_under_the_agpl() -> None:
    names, found = locked(), {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in names:
            continue
        # a licence's whole text may speak of others: only short fields state a licence
        texts = [text for text in licence_texts(distribution.metadata) if len(text) < 200]
        if any(AGPL.search(text) for text in texts):
            found[name] = texts
    assert not found


@pytest.mark.parametrize(
    "text", ["AGPL-3.0-or-later", "License :: OSI Approved :: GNU Affero General Public License v3"]
)
def test_the_gate_knows_the_agpl(text: str) -> None:
    assert AGPL.search(text)
