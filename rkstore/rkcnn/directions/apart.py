"""Removing near-duplicate directions."""

import numpy as np

from rkstore.rkcnn.moments import Floats
from rkstore.rkcnn.subsets import Indices

# At |cosine| 0.9 two directions are 26° apart and share 0.81 of their variance. They come from
# subsets that share one dominant dimension, and are copies of it; unrelated directions are far
# below it (among 60 random bases of 512 dimensions: 0.19 at most).
NEARLY_THE_SAME = 0.9

# Candidates compared at once with all kept directions.
BLOCK_DIRECTIONS = 256


def keep_apart(directions: Floats, max_cosine: float = NEARLY_THE_SAME) -> Indices:
    """Indices of the directions to keep, ascending: each is compared with those kept before.

    Args:
        directions: ``(r, d)``, of norm 1, the best first.
        max_cosine: of two whose |cosine| is larger only the first is kept; 1 keeps all.

    Returns:
        int64 ``(kept,)``.
    """
    if max_cosine >= 1:
        return np.arange(len(directions))
    kept: list[int] = []
    for start in range(0, len(directions), BLOCK_DIRECTIONS):
        block = directions[start : start + BLOCK_DIRECTIONS]
        near = np.abs(block @ directions[kept].T).max(axis=1, initial=0.0) > max_cosine
        among = np.abs(block @ block.T) > max_cosine
        here: list[int] = []
        for i in np.flatnonzero(~near).tolist():
            if not among[i, here].any():
                here.append(i)
        kept += [start + i for i in here]
    return np.array(kept, np.int64)
