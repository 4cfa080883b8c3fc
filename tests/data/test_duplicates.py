"""What is found twice does not depend on how it is told, and drops touch train alone."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.data.duplicates import Catalogue, Twin
from rootstock.data.likeness import MIRROR, THUMBNAIL_BYTES, Likeness

LOOKS = [
    Likeness(
        int(np.random.default_rng(n).integers(2**63)),
        np.random.default_rng(n).integers(0, 256, THUMBNAIL_BYTES, np.uint8).tobytes(),
    )
    for n in range(4)
]
images = st.tuples(
    st.integers(0, 6),  # the bytes; 4 to 6 look like 0 to 2, two bits apart
    st.sampled_from(["train", "val", "test"]),
    st.integers(0, 2),
)


def looks(content: int) -> Likeness:
    return LOOKS[content] if content < 4 else LOOKS[content - 4]._replace(hash=LOOKS[content - 4].hash ^ 0b101)


def catalogue(rows: list[tuple[int, str, int]]) -> Catalogue:
    result = Catalogue()
    for content, split, label in rows:
        sha256 = hashlib.sha256(str(content).encode()).hexdigest()
        result.add(sha256=sha256, likeness=looks(content), split=split, label=label)
    return result


RANK = {"test": 0, "val": 1, "train": 2}


@settings(max_examples=150, deadline=None)
@given(st.lists(images, max_size=14))
def test_twins_and_drops_as_a_double_loop_finds_them(rows):
    found = catalogue(rows).find(near_radius=3, drop_identical=True)
    order = sorted(range(len(rows)), key=lambda row: (RANK[rows[row][1]], row))
    twins, firsts = [], {}
    for row in order:
        content, *place = rows[row]
        first = firsts.setdefault(content, row)
        if first != row:
            if place != list(rows[first][1:]):
                twins.append(Twin(row, first, "identical", 0, False))
            continue
        for other_content, other in firsts.items():
            if other != row and abs(other_content - content) == 4 and place != list(rows[other][1:]):
                twins.append(Twin(row, other, "near", 2, False))
    assert found.twins == sorted(twins)
    for row, (content, split, label) in enumerate(rows):
        others = [other for other in rows if other[0] == content]
        wanted = split == "train" and any(o[1] != "train" or o[2] != label for o in others)
        assert (row in found.dropped) == wanted
        if wanted:
            says_so = rows[found.dropped[row]]
            assert says_so[0] == content
            assert says_so[1] != "train" or says_so[2] != label
    assert catalogue(rows).find(near_radius=3, drop_identical=False).dropped == {}


def test_those_of_one_split_and_label_are_counted_alone():
    rows = [(0, "train", 1), (0, "train", 1), (4, "train", 1), (1, "test", 0), (1, "test", 0), (3, "val", 0)]
    found = catalogue(rows).find(near_radius=11, drop_identical=True)
    assert found.twins == []
    assert found.dropped == {}
    assert found.same_place == {
        "identical": {"train": 1, "val": 0, "test": 1},
        "near": {"train": 1, "val": 0, "test": 0},
    }


def test_a_near_hash_of_another_picture_is_no_twin():
    result = Catalogue()
    for number, split in enumerate(("train", "test")):
        one = Likeness(LOOKS[0].hash, LOOKS[number].thumbnail)
        result.add(sha256=hashlib.sha256(split.encode()).hexdigest(), likeness=one, split=split, label=0)
    assert result.find(near_radius=11, drop_identical=False).twins == []


def test_a_mirrored_picture_is_a_twin():
    result = Catalogue()
    pixels = np.frombuffer(LOOKS[0].thumbnail, np.uint8).reshape(8, 8, 3)
    mirrored = Likeness(LOOKS[0].hash ^ MIRROR, pixels[:, ::-1].tobytes())
    for split, one in (("train", LOOKS[0]), ("val", mirrored)):
        result.add(sha256=hashlib.sha256(split.encode()).hexdigest(), likeness=one, split=split, label=0)
    assert result.find(near_radius=0, drop_identical=False).twins == [Twin(0, 1, "near", 0, True)]


def test_of_several_twins_the_nearest_is_named():
    rows = [(0, "test", 0), (4, "val", 0), (4, "train", 0)]
    found = catalogue(rows).find(near_radius=11, drop_identical=False)
    assert found.twins == [Twin(1, 0, "near", 2, False), Twin(2, 1, "identical", 0, False)]


def test_nothing_is_found_in_nothing():
    assert Catalogue().find(near_radius=11, drop_identical=True).twins == []
