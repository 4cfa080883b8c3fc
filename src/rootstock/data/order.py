"""The order of samples as a plan: (seed, epoch) gives one global order; a cursor and ranks take slices of it."""

import itertools

import numpy as np

from rootstock import rng


def epoch_order(positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Permute `positions` for one epoch: every sample exactly once.

    Args:
        positions: int64 (n,), rows of the shard index.
        seed: the training's seed.
        epoch: counted from 0.
    """
    return positions[rng.stream("order", seed, epoch).permutation(len(positions))]


def num_steps(num_samples: int, *, batch_size: int) -> int:
    """Return the steps of one epoch.

    The last batch may be short; one of a single sample is joined to the batch before it: batch normalisation needs
    two values, and a gradient of one image should not weigh as much as one of a whole batch.
    """
    steps = -(-num_samples // batch_size)
    return steps - 1 if steps > 1 and num_samples % batch_size == 1 else steps


def step_microbatches(order: np.ndarray, *, step: int, batch_size: int, microbatch_size: int) -> list[np.ndarray]:
    """Cut batch number `step` of an epoch's order into microbatches.

    A last microbatch of a single sample is joined to the one before it, as in `num_steps`; with a `microbatch_size`
    of 1 they are all such, and none is.
    """
    is_last = step == num_steps(len(order), batch_size=batch_size) - 1
    batch = order[step * batch_size : None if is_last else (step + 1) * batch_size]
    cuts = [*range(0, len(batch), microbatch_size), len(batch)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1 < microbatch_size:
        del cuts[-2]
    return [batch[start:stop] for start, stop in itertools.pairwise(cuts)]


def rank_share(num_items: int, *, rank: int, world_size: int) -> range:
    """Return the indices of the items (microbatches, evaluation chunks) that belong to a rank."""
    return range(rank, num_items, world_size)
