"""dvc.lock read as records: here, at a revision, upstream of a stage."""

import subprocess

import pytest

from rootstock import layout
from rootstock.ops import dvc_lock


@pytest.fixture(scope="module")
def records(repository):
    return dvc_lock.current(repository)


def test_a_record_holds_hashes_and_parameters(records):
    record = records["stats@target"]
    assert record.command == "python -m pipeline.stats --dataset target"
    assert record.params["stats.target"] == {"crop_size": 48, "short_side": 48}
    assert (
        record.deps["data/manifest/target.parquet"] == records["manifest@target"].outs["data/manifest/target.parquet"]
    )
    assert all(len(md5.removesuffix(".dir")) == 32 for md5 in [*record.deps.values(), *record.outs.values()])


def test_the_producer_of_a_file_is_the_stage_that_writes_it_or_its_folder(records):
    assert dvc_lock.producer(records, "models/finetune/full-0").name == "finetune@full-0"
    assert dvc_lock.producer(records, "models/finetune/full-0/model.json").name == "finetune@full-0"
    assert dvc_lock.producer(records, "models/finetune/full-00") is None


def test_upstream_is_ordered_and_holds_no_other_replica(records):
    names = [record.name for record in dvc_lock.upstream(records, "evaluate@full-1")]
    both = {f"{stage}@{role}" for stage in ("fetch", "manifest", "stats", "shards") for role in ("source", "target")}
    assert set(names) == both | {"pretrain", "finetune@full-1", "evaluate@full-1"}
    for before, after in [("fetch@source", "manifest@source"), ("shards@source", "pretrain")]:
        assert names.index(before) < names.index(after)
    assert names[-2:] == ["finetune@full-1", "evaluate@full-1"]


def test_select_depends_on_every_evaluation(records):
    names = {record.name for record in dvc_lock.upstream(records, "select")}
    assert {"evaluate@linear-0", "evaluate@full-2", "evaluate@scratch-1"} <= names


def test_an_unknown_stage_is_named(records):
    with pytest.raises(ValueError, match=r"dvc.lock: found no stage 'train', wanted one of fetch@source"):
        dvc_lock.upstream(records, "train")


def lock(md5):
    outs = f"    - path: a\n      md5: {md5}\n    - path: empty\n      md5: {'e' * 32}\n"
    return f"schema: '2.0'\nstages:\n  a:\n    cmd: make a\n    outs:\n{outs}"


def test_the_revision_that_brought_a_hash(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert dvc_lock.revision_with(["a" * 32], tmp_path) is None, "no repository"
    git("init", "-q")
    assert dvc_lock.revisions_of(layout.DVC_LOCK, tmp_path) == [], "no commit yet"
    revisions = []
    for number, letter in enumerate("aab"):
        (tmp_path / "dvc.lock").write_text(lock(letter * 32))
        (tmp_path / "other").write_text(str(number))
        git("add", "-A")
        git("commit", "-qm", "x")
        revisions.append(git("rev-parse", "HEAD"))
    assert dvc_lock.revision_with(["a" * 32], tmp_path) == revisions[0]
    assert dvc_lock.revision_with(["b" * 32], tmp_path) == revisions[2]
    assert dvc_lock.revision_with(["c" * 32], tmp_path) is None
    assert dvc_lock.revision_with(["e" * 32, "b" * 32], tmp_path) == revisions[2], "one is older than the other"
    assert dvc_lock.revision_with(["a" * 32, "b" * 32], tmp_path) is None, "never together"
    assert dvc_lock.at(revisions[1], tmp_path)["a"].outs == {"a": "a" * 32, "empty": "e" * 32}
    with pytest.raises(ValueError, match="git show"):
        dvc_lock.at("f" * 40, tmp_path)
