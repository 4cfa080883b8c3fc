"""Named random streams: every draw is a function of what it is for, never of what was drawn before it."""

import hashlib
import random

import numpy as np


def key(*names: str | int) -> int:
    """Map names such as ("augment", seed, epoch, position) to a 64-bit integer.

    Args:
        names: strings and integers; their order and their types matter (1 and "1" are different names).

    Returns:
        An integer in [0, 2**64), the same on every platform and in every process.
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def stream(*names: str | int) -> np.random.Generator:
    """Return the generator of the stream with these names.

    Two calls with equal names give generators that yield equal draws, so a result does not depend on the number of
    workers or ranks, on prefetching, or on an interruption.
    """
    return np.random.Generator(np.random.Philox(key(*names)))


def restart(generator: random.Random, *names: str | int) -> None:
    """Put a generator at the beginning of the stream with these names: for draws so many that `stream` is too slow.

    Its draws are other ones than those of `stream`, and as independent of history.
    """
    generator.seed(key(*names))
