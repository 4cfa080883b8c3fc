"""Every hostile input of `make fuzz`, with a smaller tar of many members: the right answer, little time and memory."""

import json
import subprocess
import sys

from faults import hostile_inputs


def test_every_hostile_input_is_answered_and_nothing_is_written_outside(repository):
    """In a process of its own, with one thread, for it forks."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "faults.hostile_inputs", "--json", "--entries", "70000"],
        cwd=repository / "tests",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len({(row["door"], row["case"]) for row in rows}) >= 50
    assert [text for row in rows for text in hostile_inputs.wrongs(row)] == []
