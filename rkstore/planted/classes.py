"""Planted features as token classes: whether one fires."""

import numpy as np
from numpy.typing import NDArray

from rkstore.planted.features import Planted

# The most classes, those of the features that fire most.
MOST = 32


def planted_classes(planted: Planted, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int8]]:
    """Whether each feature that has children fires in each row, ``(n,)``; every feature if no
    feature has children.

    Args:
        rows: of the store, ascending, ``(n,)``.
    """
    forest = planted.forest
    parents = np.unique(forest.parent[forest.parent >= 0])
    chosen = parents if len(parents) else np.arange(planted.features)
    chosen = chosen[np.argsort(-forest.probability[chosen], kind="stable")][:MOST]
    fires = np.zeros((len(rows), len(chosen)), np.int8)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        code = planted.codes(int(rows[first]), int(rows[stop - 1]) + 1)
        fires[first:stop] = code[:, chosen] != 0
    return {f"feature {number}": fires[:, i] for i, number in enumerate(chosen.tolist())}
