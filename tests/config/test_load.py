"""The one door to YAML reads what DVC reads, and keeps what it edits."""

import pytest
from dvc.utils.serialize import load_yaml

from rootstock.config.load import edit_yaml, load_section, read_yaml, write_yaml
from rootstock.config.section import ParamsError
from rootstock.config.stats import Stats

TRICKY = """\
a: 1e-3
b: on
c: yes
d: 012
e: 0o17
f: 1_000
g: ~
h: null
i: .5
j: 2020-01-01
k: 1.0
l: 1
m: "1"
n: True
o: 12:30:45
p: .inf
q: &anchor {x: 1}
r: *anchor
s: 0x1F
t: [1, 2.5, no]
"""


def test_yaml_is_that_of_version_1_2_as_dvc_reads_it(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TRICKY)
    found = read_yaml(path)
    assert found["a"] == 0.001
    assert isinstance(found["a"], float)
    assert found["b"] == "on"
    assert found["c"] == "yes"
    assert found["d"] == 12
    assert found["e"] == 15
    assert found["g"] is found["h"] is None
    assert found["n"] is True
    assert found["t"] == [1, 2.5, "no"]
    assert found == load_yaml(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "is not YAML"),
        ("a: 1\na: 2\n", "is not YAML"),
        ("- 1\n", "found list, wanted a mapping of sections"),
        ("", "found NoneType, wanted a mapping of sections"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(ParamsError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(ParamsError) as caught:
        read_yaml(tmp_path / "params.yaml")
    assert str(caught.value) == f"{tmp_path / 'params.yaml'} is missing; `make configure` writes it"


def test_a_section_is_read_by_its_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("stats:\n  source: {short_side: 8, crop_size: 4}\n  target: 3\n")
    assert load_section(path, Stats, "stats", "source") == Stats(short_side=8, crop_size=4)
    for names, message in (
        (("stats", "other"), f"{path}: stats.other: missing section"),
        (("shards", "source"), f"{path}: shards: missing section"),
        (("stats", "target", "x"), f"{path}: stats.target.x: missing section"),
    ):
        with pytest.raises(ParamsError) as caught:
            load_section(path, Stats, *names)
        assert str(caught.value) == message
    with pytest.raises(ParamsError, match=r"params\.yaml: stats\.target.*valid dictionary"):
        load_section(path, Stats, "stats", "target")


def test_what_is_written_is_read_back_under_its_header(tmp_path):
    value = {"a": {"b": [1, 0.001, "on", None, True], "c": 1e-05}, "d": "x: y"}
    write_yaml(tmp_path / "p.yaml", value, header="one\ntwo")
    assert (tmp_path / "p.yaml").read_text().startswith("# one\n# two\na:\n")
    assert read_yaml(tmp_path / "p.yaml") == value == load_yaml(tmp_path / "p.yaml")


def test_editing_keeps_comments_and_order(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("# head\nz: 1 # why\na:\n  - x\n")
    with edit_yaml(path) as content:
        content["a"].append("y")
    assert path.read_text() == "# head\nz: 1 # why\na:\n  - x\n  - y\n"
