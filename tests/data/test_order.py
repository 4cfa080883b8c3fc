"""The order is a plan: each sample once an epoch, whoever takes which part of it and wherever it is taken up again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.data.order import epoch_order, num_steps, rank_share, step_microbatches

few = settings(max_examples=80, deadline=None)
sizes = {
    "num_samples": st.integers(2, 120),
    "microbatch_size": st.integers(1, 9),
    "num_microbatches": st.integers(1, 5),
    "epoch": st.integers(0, 3),
}


def planned(num_samples: int, microbatch_size: int, num_microbatches: int, epoch: int) -> list[list[np.ndarray]]:
    """The microbatches of each step of an epoch."""
    batch_size = microbatch_size * num_microbatches
    order = epoch_order(np.arange(1000, 1000 + num_samples), seed=7, epoch=epoch)
    return [
        step_microbatches(order, step=step, batch_size=batch_size, microbatch_size=microbatch_size)
        for step in range(num_steps(num_samples, batch_size=batch_size))
    ]


@few
@given(**sizes)
def test_each_sample_comes_exactly_once_an_epoch(num_samples, microbatch_size, num_microbatches, epoch):
    steps = planned(num_samples, microbatch_size, num_microbatches, epoch)
    seen = np.concatenate([microbatch for step in steps for microbatch in step])
    assert sorted(seen) == list(range(1000, 1000 + num_samples))


@few
@given(**sizes)
def test_microbatches_are_whole_but_for_the_end(num_samples, microbatch_size, num_microbatches, epoch):
    steps = planned(num_samples, microbatch_size, num_microbatches, epoch)
    counts = [[len(microbatch) for microbatch in step] for step in steps]
    for step in counts[:-1]:
        assert step == [microbatch_size] * num_microbatches
    *before, last = [count for step in counts for count in step]
    assert set(before) <= {microbatch_size}
    assert 1 <= last <= microbatch_size + 1
    if microbatch_size > 1:
        assert last >= 2, "batch normalisation needs two values"


@few
@given(world_size=st.integers(1, 6), **sizes)
def test_ranks_share_the_steps_microbatches(world_size, num_samples, microbatch_size, num_microbatches, epoch):
    for step in planned(num_samples, microbatch_size, num_microbatches, epoch):
        taken = [
            number for rank in range(world_size) for number in rank_share(len(step), rank=rank, world_size=world_size)
        ]
        assert sorted(taken) == list(range(len(step)))


@few
@given(cursor=st.integers(0, 200), **sizes)
def test_a_cursor_takes_up_the_plan_where_it_was_left(cursor, num_samples, microbatch_size, num_microbatches, epoch):
    """Nothing is drawn in passing: step s is the same whether or not the steps before it were ever asked for."""
    steps = planned(num_samples, microbatch_size, num_microbatches, epoch)
    cursor %= len(steps)
    order = epoch_order(np.arange(1000, 1000 + num_samples), seed=7, epoch=epoch)
    batch_size = microbatch_size * num_microbatches
    again = step_microbatches(order, step=cursor, batch_size=batch_size, microbatch_size=microbatch_size)
    assert [part.tolist() for part in again] == [part.tolist() for part in steps[cursor]]


def test_epochs_and_seeds_differ_and_repeat():
    positions = np.arange(50)
    orders = {(s, e): epoch_order(positions, seed=s, epoch=e).tolist() for s in (0, 1) for e in (0, 1, 2)}
    assert len({tuple(order) for order in orders.values()}) == 6
    assert epoch_order(positions, seed=1, epoch=2).tolist() == orders[1, 2]
    assert positions.tolist() == list(range(50)), "the positions are left as they are"


def test_every_place_is_equally_likely():
    """Sample 0's place over 2000 epochs: chi-square with 9 degrees of freedom, 99.99 % below 33.7."""
    places = [int(np.flatnonzero(epoch_order(np.arange(10), seed=3, epoch=e) == 0)[0]) for e in range(2000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 33.7


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "wanted"),
    [(8, 4, [[4], [4]]), (9, 4, [[4], [5]]), (10, 4, [[4], [4], [2]]), (1, 4, [[1]]), (3, 1, [[1], [1], [1]])],
)
def test_a_single_sample_left_over_joins_the_batch_before(num_samples, batch_size, wanted):
    assert num_steps(num_samples, batch_size=batch_size) == len(wanted)
    order = np.arange(num_samples)
    found = [
        [len(part) for part in step_microbatches(order, step=step, batch_size=batch_size, microbatch_size=batch_size)]
        for step in range(len(wanted))
    ]
    assert found == wanted
