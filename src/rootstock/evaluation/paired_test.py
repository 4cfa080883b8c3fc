"""The exact one-sided test that B is better than A on the same images, and the smallest difference that it shows.

Only images that exactly one of the two gets right say anything. If B is no better, at most half of them are B's, so
their number is judged by the binomial distribution. Nothing here is an approximation: with 20 such images the normal
one promises differences that the exact test does not show.
"""

import numpy as np
from scipy.stats import binom

OUTSIDE = 1e-9  # probability of numbers of disagreements that are left out, at each end
NUM_HALVINGS = 24  # of the interval [0, 1]: the answer is off by at most 6e-8


def p_value(num_only_a: int, num_only_b: int) -> float:
    """Return the probability of at least this many images right only by B, if B is no better than A.

    Source: McNemar 1947, exact binomial form, one-sided.
    """
    return float(binom.sf(num_only_b - 1, num_only_a + num_only_b, 0.5))


def num_wanted(num_disagreements: np.ndarray, *, level: float) -> np.ndarray:
    """Return how many of the disagreements must be B's for a p-value of at most `level`.

    Returns:
        Integers like `num_disagreements`; one more than there are where even all of them do not suffice.
    """
    return binom.isf(level, num_disagreements, 0.5).astype(np.int64) + 1


def power(difference: float, *, num_images: int, disagreement: float, level: float) -> float:
    """Return the probability that the test shows a true difference of accuracy.

    Args:
        difference: accuracy of B − accuracy of A, in [0, 1].
        disagreement: share of images that exactly one gets right, in [0, 1]; at least `difference`, else taken as it.
        level: of the test, in (0, 1).
    """
    disagreement = max(disagreement, difference)
    if disagreement == 0:
        return 0.0
    first, last = binom.ppf([OUTSIDE, 1 - OUTSIDE], num_images, disagreement)
    numbers = np.arange(first, last + 1)
    of_b = (disagreement + difference) / (2 * disagreement)
    shown = binom.sf(num_wanted(numbers, level=level) - 1, numbers, of_b)
    return float(binom.pmf(numbers, num_images, disagreement) @ shown)


def detectable_difference(
    num_disagreements: int, *, num_images: int, level: float, wanted_power: float
) -> float | None:
    """Return the smallest true difference of accuracy that the test shows with a probability of `wanted_power`.

    Args:
        num_disagreements: images that exactly one gets right, as observed; their share is taken as the true one. A
            difference above this share is one in which the two disagree only in B's favour.
        level: of the test, in (0, 1).
        wanted_power: in (level, 1).

    Returns:
        A fraction in (0, 1]; None where so few images show no difference at all.
    """
    disagreement = num_disagreements / num_images

    def enough(difference: float) -> bool:
        return power(difference, num_images=num_images, disagreement=disagreement, level=level) >= wanted_power

    if not enough(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
