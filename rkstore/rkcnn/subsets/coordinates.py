"""coordinates: random subsets of the dimensions themselves, as published."""

import itertools
import math

import numpy as np

from rkstore.rkcnn.subsets.base import Indices, Subsets, first_of_each

# Rows of the (subsets, d) table of taken dimensions: 12 MiB of booleans for d = 3072.
BLOCK_SUBSETS = 4096


class Coordinates(Subsets):
    """Subsets of dimensions, each equally likely, no two the same."""

    name = "coordinates"

    def draw(self, d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
        return random_subsets(d, m, h, generator)


def random_subsets(d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
    """Draw ``h`` distinct subsets of ``m`` of ``d`` dimensions, each subset equally likely.

    There are only C(d, m) of them: if ``h`` is larger, all are returned, in random
    order, and the result has fewer than ``h`` rows. A repeated subset would have the same score
    and take a second place among the best for the same direction.

    Returns:
        int64 ``(min(h, C(d, m)), m)``, each row sorted.
    """
    total = math.comb(d, m)
    if total <= 2 * h:
        return generator.permutation(_all_subsets(d, m, total))[:h]
    subsets = np.empty((0, m), np.int64)
    # More than half of all subsets are always new, so this ends, usually after one draw.
    while len(subsets) < h:
        more = _draw(d, m, h - len(subsets), generator)
        subsets = first_of_each(np.concatenate([subsets, more]))
    return subsets


def _all_subsets(d: int, m: int, total: int) -> Indices:
    flat = itertools.chain.from_iterable(itertools.combinations(range(d), m))
    return np.fromiter(flat, np.int64, total * m).reshape(total, m)


def _draw(d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
    """Draw ``(h, m)`` sorted subsets, each without replacement; two may be the same.

    Robert Floyd's algorithm (Bentley & Floyd 1987, "Programming pearls: a sample of brilliance",
    CACM 30(9)), on a block of subsets at once: ``m`` draws per subset, where shuffling would cost
    ``d``.
    """
    subsets = np.empty((h, m), np.int64)
    for start in range(0, h, BLOCK_SUBSETS):
        block = subsets[start : start + BLOCK_SUBSETS]
        taken = np.zeros((len(block), d), bool)
        every = np.arange(len(block))
        for last in range(d - m, d):
            candidate = generator.integers(0, last + 1, len(block))
            taken[every, np.where(taken[every, candidate], last, candidate)] = True
        block[:] = taken.nonzero()[1].reshape(block.shape)
    return subsets
