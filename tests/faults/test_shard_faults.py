"""A hundred of the thousand faults that `make fuzz` makes in shards: all found, all named; none found where none is."""

import os

import pytest
from faults import shard_faults


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_every_fault_is_found_and_named(tmp_path):
    findings = shard_faults.run(tmp_path, number=100, seed=7)
    assert len(findings) == 100
    assert {finding.fault.kind for finding in findings if not finding.by_verify} == set()
    assert [finding for finding in findings if not finding.is_named] == []


def test_unchanged_shards_raise_no_alarm(tmp_path):
    assert shard_faults.false_alarms(tmp_path, number=5) == 0
