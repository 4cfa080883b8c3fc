"""One thin script a stage, in the order of the flow."""

import importlib.util
import os
import sys
from pathlib import Path

# Before the first import of torch: threads that wait must sleep, not spin. Beside other work on the same cores,
# spinning costs a step more than its own time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# This checkout's library, also where the interpreter's environment was made for another checkout (a queued experiment);
# in worker processes too, which inherit the variable and not the path.
LIBRARY = str(Path(__file__).resolve().parent.parent / "src")
sys.path.insert(0, LIBRARY)
os.environ["PYTHONPATH"] = os.pathsep.join([LIBRARY, *filter(None, [os.environ.get("PYTHONPATH")])])

if importlib.util.find_spec("pydantic") is None:
    sys.exit(
        f"error: {sys.executable} has none of Rootstock's packages: run `make repro`, or put .venv/bin first on PATH"
    )
