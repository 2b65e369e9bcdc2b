"""Massive rows: the few, mostly BOS and attention sinks, with far larger norms than others.

Up to a hundred times as far from the mean as the others (Sun et al. 2024, "Massive Activations
in Large Language Models", arXiv 2402.17762), they hide the rest: they would set a codec's scale
and dominate an error summed over all rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows at a time: they stay in the processor's cache.
BLOCK_ROWS = 64

# A row is massive at this many times the usual distance from the centre.
FACTOR = 10.0

# Norms are summed in float32: a row this close to the threshold is measured again.
NEAR = 0.99

# About how many rows are sampled, and how many of those give a first centre.
ENOUGH_ROWS, MEDIAN_ROWS = 341, 17


@dataclass(frozen=True)
class Usual:
    """The distribution of ordinary rows: around ``centre (d_in,)``, within ``reach``."""

    centre: NDArray[np.float32]
    reach: float

    @classmethod
    def of(cls, x: NDArray[np.float32]) -> "Usual":
        """Estimated from finite rows ``(n, d_in)``, most of which are not massive.

        The centre is the mean of those within reach of the median of a few, so that massive rows
        do not shift it. If most rows are identical, none is massive.
        """
        # Odd strides, because blocks start alike, at even positions.
        x = x[:: len(x) // ENOUGH_ROWS | 1]
        usual = _around(np.median(x[:: len(x) // MEDIAN_ROWS | 1], axis=0), x)
        return _around(x[~usual.massive(x)].mean(axis=0, dtype=np.float64), x)

    def massive(
        self, x: NDArray[np.float32], squares: NDArray[np.float32] | None = None
    ) -> NDArray[np.bool_]:
        """Which of the rows ``(n, d_in)`` are massive, ``(n,)``.

        Args:
            squares: their :func:`squared_lengths`, if known.
        """
        squares = squared_lengths(x) if squares is None else squares
        # By the triangle inequality only a few rows have to be checked.
        near = NEAR * (self.reach - float(np.linalg.norm(self.centre.astype(np.float64))))
        massive = ~(np.sqrt(squares) <= near)
        if massive.any():
            massive[massive] = _distances(x[massive], self.centre) > self.reach
        return massive


def squared_lengths(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """``‖x‖²`` of rows ``(n, d_in)``; infinite or NaN if a value is, or is beyond 1e19."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[np.float32] = np.einsum("nd,nd->n", x, x)
    return found


def _around(centre: NDArray[Any], x: NDArray[np.float32]) -> Usual:
    centre = centre.astype(np.float32)
    distance = float(np.median(_distances(x, centre)))
    return Usual(centre, FACTOR * distance if distance else np.inf)


def _distances(x: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.float64]:
    out, held = np.empty(len(x)), np.empty((min(BLOCK_ROWS, len(x)), x.shape[1]), np.float32)
    for start in range(0, len(x), BLOCK_ROWS):  # a block stays in the processor's cache
        with np.errstate(over="ignore"):
            block = x[start : start + BLOCK_ROWS]
            block = np.subtract(block, centre, out=held[: len(block)])
            out[start : start + BLOCK_ROWS] = np.einsum("nd,nd->n", block, block)
    return np.sqrt(out)
