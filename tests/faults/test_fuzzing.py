"""Ten seconds of what `make fuzz` does for ten minutes: neither tars nor images crash or hang their readers."""

from faults import fuzzing


def test_damage_gives_the_documented_errors_only(tmp_path):
    found = fuzzing.in_child(tmp_path, seconds=8, start=5)
    assert "crash" not in found, found
    for what in ("tar read", "tar refused", "image read", "image refused"):
        assert found["counts"][what] > 0
