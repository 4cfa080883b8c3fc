"""Fixtures every room uses."""

import os
import signal
from pathlib import Path

import pytest
import small_project

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background by a shell that ignores Ctrl-C: what we start would inherit that, and tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs in the official formats; not part of the project."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real photographs beside the checkout")
    return folder


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> Path:
    """A small project, reproduced once a session; only to be read, or copied by `small`."""
    return small_project.build(REPOSITORY, tmp_path_factory.mktemp("reproduced") / "project")


@pytest.fixture
def small(reproduced, tmp_path) -> Path:
    """A copy of the small reproduced project, in git, to be used and broken."""
    return small_project.copy(reproduced, tmp_path / "project")
