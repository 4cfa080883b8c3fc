"""Write a benchmark's figures with what they depend on: versions, machine, commit."""

import json
from pathlib import Path

from rootstock.ops import fingerprint, hardware

ROOT = Path(__file__).resolve().parents[1]


def write(name: str, figures: dict) -> Path:
    """Write benchmarks/results/<name>.json and return its path.

    Args:
        figures: JSON values; each figure with its n.
    """
    path = ROOT / "benchmarks/results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    facts = {
        "figures": figures,
        "hardware": hardware.describe(),
        "environment": fingerprint.environment(folder=ROOT, lock=ROOT / "requirements.lock"),
    }
    path.write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return path
