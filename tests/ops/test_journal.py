"""The outbox: durable, in order, delivered by whoever finds its writer gone."""

import os

import pytest

from rootstock.ops.journal import Journal, leftovers


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "a-1.jsonl", header={"token": "a"})
    yield made
    made.close()


def lines_of(journal):
    return journal.pending(100)[0]


def test_lines_come_back_in_order_after_the_header(journal):
    journal.append([["point", "loss", 1.0, 1, 5]])
    journal.append([["tag", "a", "ü\n"]])
    assert lines_of(journal) == [["header", {"token": "a"}], ["point", "loss", 1.0, 1, 5], ["tag", "a", "ü\n"]]


def test_the_cursor_moves_only_when_acknowledged(journal):
    journal.append([["tag", "a", "1"], ["tag", "b", "2"]])
    lines, cursor = journal.pending(2)
    assert len(lines) == 2
    assert journal.pending(2)[0] == lines
    journal.acknowledge(cursor)
    assert lines_of(journal) == [["tag", "b", "2"]]
    assert not journal.is_delivered()
    journal.acknowledge(journal.pending(9)[1])
    assert journal.is_delivered()


def test_a_living_writer_is_no_leftover_and_a_closed_one_is_delivered_from_its_cursor(journal, tmp_path):
    journal.append([["tag", "a", "1"]])
    journal.acknowledge(journal.pending(1)[1])
    assert list(leftovers(tmp_path)) == []
    journal.close()
    [found] = leftovers(tmp_path)
    assert found.header == {"token": "a"}
    assert lines_of(found) == [["tag", "a", "1"]]
    assert not found.has_ended()
    assert list(leftovers(tmp_path)) == []  # found holds it now
    found.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_cut_and_later_lines_start_on_their_own(journal, tmp_path):
    journal.append([["end", "FINISHED", 5]])
    journal.close()
    with open(journal.path, "ab") as file:
        file.write(b'["tag", "a", "hal')
    [found] = leftovers(tmp_path)
    assert found.has_ended()
    found.append([["tag", "b", "2"]])
    assert lines_of(found) == [["header", {"token": "a"}], ["end", "FINISHED", 5], ["tag", "b", "2"]]
    found.close()


def test_a_failed_write_leaves_no_half_line_and_is_made_good_by_the_next(journal, monkeypatch):
    journal.append([["tag", "a", "1"]])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            journal.append([["tag", "b", "2"]])
    assert lines_of(journal)[1:] == [["tag", "a", "1"]]
    assert not journal.is_delivered()
    journal.append([["tag", "c", "3"]])
    assert lines_of(journal)[1:] == [["tag", "a", "1"], ["tag", "b", "2"], ["tag", "c", "3"]]


def test_a_folder_that_is_not_there_yields_nothing(tmp_path):
    assert list(leftovers(tmp_path / "none")) == []
