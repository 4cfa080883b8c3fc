"""The judge of `make faults` sees a second writer where there is one, and only there."""

from faults.trial import Note, second_writers

OLD, NEW = 11, 22


def notes(*rows: tuple[str, int, str]) -> list[Note]:
    return [Note(float(number), stage, owner, "open", path) for number, (stage, owner, path) in enumerate(rows)]


def test_writing_after_a_later_process_has_begun_is_found_once() -> None:
    seen = notes(("pretrain", OLD, "a"), ("pretrain", NEW, "a"), ("pretrain", OLD, "b"), ("pretrain", OLD, "c"))
    assert second_writers(seen) == [f"second writer: {OLD} of pretrain wrote b after {NEW} had begun"]


def test_one_after_the_other_and_other_stages_are_well() -> None:
    assert second_writers(notes(("pretrain", OLD, "a"), ("pretrain", NEW, "a"), ("pretrain", NEW, "b"))) == []
    assert second_writers(notes(("stats", OLD, "a"), ("shards", NEW, "a"), ("stats", OLD, "b"))) == []
