"""Compare the raw archives with what `fetch` noted: DVC tracks only the note, and would not see that they changed."""

import subprocess
import sys

from rootstock import layout
from rootstock.config.fetch import Fetch
from rootstock.config.load import load_section
from rootstock.ops.collection import open_collection
from rootstock.schema import source as source_schema


def changed(dataset: str) -> list[str]:
    """Return what differs between a dataset's archives and its source.json, one sentence a difference.

    Nothing differs where `fetch` has not run yet, or ran for another collection: both are for DVC to notice.
    """
    note = layout.source(dataset)
    if not note.is_file():
        return []
    noted = source_schema.read(note)
    if noted["collection"] != load_section(layout.PARAMS, Fetch, "fetch", dataset).root.collection:
        return []
    return open_collection(dataset).check(noted["files"])


def fetch_again(dataset: str) -> int:
    """Run one dataset's `fetch` through DVC, whatever DVC thinks of it. Return the exit status."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", "--no-run-cache", f"fetch@{dataset}"]
    return subprocess.run(command, check=False).returncode
