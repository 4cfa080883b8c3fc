"""Images that are in a collection twice: the same bytes, or the same picture in other bytes.

Those of two splits are leaks, those under two labels are contradictions: both are listed, each image with the nearest
image that stands before it (test before val before train, then the collection's order). Two of one split and label
are only counted.
"""

from array import array
from typing import NamedTuple

import numpy as np

from rootstock.data.likeness import THUMBNAIL_BYTES, Likeness, alike
from rootstock.data.near_pairs import near_pairs
from rootstock.schema.names import SPLITS

SUM_BYTES = 16  # of sha256: no two files share them by chance
RANK = {"test": 0, "val": 1, "train": 2}  # what judges comes before what is judged
TRAIN = RANK["train"]


class Twin(NamedTuple):
    """Two images by their rows, the second standing before the first."""

    row: int
    other: int
    kind: str  # of schema.duplicates
    distance: int  # bits
    mirrored: bool


class Found(NamedTuple):
    """What a collection holds twice."""

    twins: list[Twin]  # of two splits or two labels, by row
    dropped: dict[int, int]  # rows of train images to leave out: the row of the image that says so
    same_place: dict[str, dict[str, int]]  # kind: split: images with a twin of their own split and label


class Catalogue:
    """Looks and sums of a collection's images, about 220 bytes each."""

    def __init__(self) -> None:
        self._sums, self._thumbnails = bytearray(), bytearray()
        self._hashes, self._ranks, self._labels = array("Q"), array("b"), array("i")

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, *, sha256: str, likeness: Likeness, split: str, label: int) -> None:
        """Take in the next row."""
        self._sums += bytes.fromhex(sha256)[:SUM_BYTES]
        self._thumbnails += likeness.thumbnail
        self._hashes.append(likeness.hash)
        self._ranks.append(RANK[split])
        self._labels.append(label)

    def find(self, *, near_radius: int, drop_identical: bool) -> Found:
        """Compare all rows with each other.

        Args:
            near_radius: bits by which the hashes of one picture may differ, 0 to `near_pairs.MAX_RADIUS`.
            drop_identical: name the train images whose bytes are also in val or test, or carry two labels.
        """
        ranks = np.frombuffer(self._ranks, np.int8)
        order = np.argsort(ranks, kind="stable")  # from here on "place" is a place in this order
        ranks, labels = ranks[order], np.frombuffer(self._labels, np.int32)[order]
        first = _first_of_its_bytes(np.frombuffer(self._sums, f"S{SUM_BYTES}")[order])
        differs = (ranks != ranks[first]) | (labels != labels[first])
        is_copy = first != np.arange(len(first))

        near = _Nearest(ranks, labels)
        lone = np.flatnonzero(~is_copy)  # of identical images one stands for all
        hashes = np.frombuffer(self._hashes, np.uint64)[order[lone]]
        thumbnails = np.frombuffer(self._thumbnails, np.uint8).reshape(-1, THUMBNAIL_BYTES)
        for pairs in near_pairs(hashes, radius=near_radius):
            places = lone[pairs.first], lone[pairs.second]
            same = alike(*(thumbnails[order[place]] for place in places), mirrored=pairs.mirrored)
            near.take(*(column[same] for column in (*places, pairs.distance, pairs.mirrored)))

        twins = [Twin(order[place], order[first[place]], "identical", 0, False) for place in np.flatnonzero(differs)]
        twins += [
            Twin(order[place], order[near.other[place]], "near", near.distance[place], near.mirrored[place])
            for place in np.flatnonzero(near.other >= 0)
        ]
        twins = [Twin(int(t.row), int(t.other), t.kind, int(t.distance), bool(t.mirrored)) for t in twins]
        dropped = _contradicted(first, ranks, labels) if drop_identical else {}
        return Found(
            twins=sorted(twins),
            dropped={int(order[place]): int(order[other]) for place, other in sorted(dropped.items())},
            same_place={
                "identical": _by_split(ranks[is_copy & ~differs]),
                "near": _by_split(ranks[near.has_harmless]),
            },
        )


class _Nearest:
    """For each place the nearest one before it that has another split or label."""

    def __init__(self, ranks: np.ndarray, labels: np.ndarray):
        self._ranks, self._labels = ranks, labels
        self.other = np.full(len(ranks), -1)
        self.distance = np.full(len(ranks), 255, np.uint8)
        self.mirrored = np.zeros(len(ranks), bool)
        self.has_harmless = np.zeros(len(ranks), bool)

    def take(self, first: np.ndarray, second: np.ndarray, distance: np.ndarray, mirrored: np.ndarray) -> None:
        """Compare some pairs with what is known; the outcome does not depend on the order in which they come."""
        harmless = (self._ranks[first] == self._ranks[second]) & (self._labels[first] == self._labels[second])
        self.has_harmless[second[harmless]] = True
        first, second, distance, mirrored = (one[~harmless] for one in (first, second, distance, mirrored))
        best = np.lexsort((first, distance, second))
        best = best[np.diff(second[best], prepend=-1) != 0]
        first, second, distance, mirrored = (one[best] for one in (first, second, distance, mirrored))
        known = self.distance[second]
        nearer = (distance < known) | ((distance == known) & (first < self.other[second]))
        place = second[nearer]
        self.other[place], self.distance[place], self.mirrored[place] = (
            first[nearer],
            distance[nearer],
            mirrored[nearer],
        )


def _first_of_its_bytes(sums: np.ndarray) -> np.ndarray:
    """Return for each place the first with the same bytes, itself where there is none before it."""
    if len(sums) == 0:
        return np.zeros(0, np.int64)
    _, index, inverse = np.unique(sums, return_index=True, return_inverse=True)
    return index[inverse]


def _contradicted(first: np.ndarray, ranks: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Return the train places whose bytes are held out or carry two labels: each with the place that says so."""
    of_two_labels = np.unique(first[labels != labels[first]])
    wanted = (ranks == TRAIN) & ((ranks[first] != TRAIN) | np.isin(first, of_two_labels))
    says_so = {int(place): int(first[place]) for place in np.flatnonzero(wanted)}
    # within train the first one is contradicted too, and those of its label: by the first of another label
    within = np.flatnonzero(wanted & (ranks[first] == TRAIN))
    against = {int(first[place]): int(place) for place in within[::-1] if labels[place] != labels[first[place]]}
    for place in within.tolist():
        if labels[place] == labels[first[place]]:
            says_so[place] = against[int(first[place])]
    return says_so


def _by_split(ranks: np.ndarray) -> dict[str, int]:
    return {split: int((ranks == RANK[split]).sum()) for split in SPLITS}
