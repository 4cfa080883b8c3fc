"""Some of the kills that `make fuzz` makes: a killed sharding job leaves nothing partial, and the next one goes on."""

import json
import subprocess
import sys
import textwrap

import pyarrow
import pytest
from faults import shard_faults, shard_kills

from rootstock.data import shard_note
from rootstock.schema.contract import read_facts, read_table, write_table
from rootstock.schema.manifest import MANIFEST, MANIFEST_ARROW

TRIALS = """
    import json, sys
    from pathlib import Path
    from faults import shard_kills
    print(json.dumps(shard_kills.run(Path(sys.argv[1]), number=12, modes=["call", "time"])))
"""


def test_a_killed_job_leaves_nothing_partial_and_the_next_goes_on(tmp_path, repository):
    """In a process of its own, with one thread, for it forks."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRIALS), str(tmp_path)],
        cwd=repository / "tests",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)
    assert [one["wrongs"] for one in trials] == [[]] * 12
    assert sum(one["num_kills"] for one in trials) >= 8  # a job may end before its instant
    assert sum(one["num_kept"] for one in trials) > 12


@pytest.fixture
def unfinished(tmp_path):
    """What a job that failed at its last shard leaves."""
    shard_faults.plant(tmp_path, seed=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rootstock.data.shards.index_sum", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shard_kills.write(tmp_path, short_side=None, workers=1)
    assert shard_kills.contents(tmp_path / "shards") == {}
    assert len(list((tmp_path / ".shards.unfinished").glob("*.tar"))) > 5
    return tmp_path


def kept(folder) -> int:
    num_kept = shard_kills._finish(folder, None)
    assert shard_faults.verify_shards(folder / "shards") == []
    return num_kept


def test_whole_shards_of_the_same_job_are_kept(unfinished):
    num_shards = len(list(unfinished.glob(".shards.unfinished/*.tar")))
    assert kept(unfinished) == num_shards > 5


def test_a_damaged_shard_a_damaged_note_and_a_lost_note_are_not_believed(unfinished):
    one, two, three, *others = sorted(unfinished.glob(".shards.unfinished/*.tar"))
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    two.with_name(f"{two.name}.json").write_bytes(b"{")
    three.with_name(f"{three.name}.json").unlink()
    assert kept(unfinished) == len(others)


def test_shards_of_another_version_of_the_code_are_not_kept(unfinished, monkeypatch):
    monkeypatch.setattr("rootstock.data.shard_note._code", lambda: b"another version")
    assert kept(unfinished) == 0


def test_shards_of_other_samples_are_not_kept(unfinished):
    path = unfinished / "manifest.parquet"
    frame, facts = read_table(path, MANIFEST), read_facts(path)
    write_table(path, [frame.assign(label=(frame["label"] + 1) % 12)], MANIFEST, MANIFEST_ARROW, facts)
    assert kept(unfinished) == 0


def test_a_setting_a_label_and_a_key_change_a_tasks_identity():
    rows = {"key": ["a", "b"], "label": [1, 2], "archive": ["x", "y"], "offset": [0, 9]}
    settings = ({"backend": "simplejpeg"}, None, 90)
    first = shard_note.identity(pyarrow.table(rows), *settings)
    assert shard_note.identity(pyarrow.table(rows | {"archive": ["moved", "y"]}), *settings) == first
    others = [
        shard_note.identity(pyarrow.table(rows), {"backend": "pillow"}, None, 90),
        shard_note.identity(pyarrow.table(rows), *settings[:2], 91),
        shard_note.identity(pyarrow.table(rows), settings[0], 256, 90),
        shard_note.identity(pyarrow.table(rows | {"label": [1, 3]}), *settings),
        shard_note.identity(pyarrow.table(rows | {"key": ["a", "c"]}), *settings),
        shard_note.identity(pyarrow.table(rows).take([1, 0]), *settings),
    ]
    assert len({first, *others}) == 7
