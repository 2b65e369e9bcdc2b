"""How often and how strongly each latent fires, summed over segments."""

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.samples.codes import Segment

# Equal parts of the rows, in each of which firing is counted.
WINDOWS = 10


class Totals:
    """Sums over all rows, those of magnitudes in float64."""

    def __init__(self, d_sae: int, rows: int, context_size: int) -> None:
        """Begin with none of ``rows`` rows."""
        self.rows, self.context_size, self._seen = rows, context_size, 0
        windows = min(WINDOWS, rows)
        self.fired = np.zeros(d_sae, np.int64)
        self.blocks = np.zeros(d_sae, np.int64)
        self.windows = np.zeros((d_sae, windows), np.int64)
        self.window_rows = np.zeros(windows, np.int64)
        self.largest = np.zeros(d_sae, np.float32)
        self._sum, self._squares = np.zeros(d_sae), np.zeros(d_sae)

    def add(self, segment: Segment) -> None:
        """Add the rows of a segment, behind those added before."""
        d_sae, latent = len(self.fired), segment.latent
        magnitude = np.abs(segment.value)
        np.maximum.at(self.largest, latent, magnitude)
        exact = magnitude.astype(np.float64)
        self._sum += np.bincount(latent, exact, d_sae)
        self._squares += np.bincount(latent, exact**2, d_sae)
        windows = len(self.window_rows)
        window = (self._seen + np.arange(len(segment.rows))) * windows // self.rows
        self._seen += len(segment.rows)
        self.window_rows += np.bincount(window, minlength=windows)
        cell = latent.astype(np.int64) * windows + window[segment.place]
        here = np.bincount(cell, minlength=d_sae * windows).reshape(d_sae, windows)
        self.windows += here
        self.fired += here.sum(axis=1)
        block, count = blocks_of(segment, self.context_size)
        pairs = np.sort(latent.astype(np.int64) * count + block[segment.place])
        different = pairs[np.diff(pairs, prepend=-1) != 0]
        self.blocks += np.bincount(different // count, minlength=d_sae)

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean magnitude where a latent fires; 0 if it never does."""
        return (self._sum / np.maximum(self.fired, 1)).astype(np.float32)

    @property
    def deviation(self) -> NDArray[np.float32]:
        """Its standard deviation."""
        count = np.maximum(self.fired, 1)
        variance = self._squares / count - (self._sum / count) ** 2
        return np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def blocks_of(segment: Segment, context_size: int) -> tuple[NDArray[np.int64], int]:
    """The block of each of its rows, counted from 0, ``(r,)``, and how many there are."""
    block = segment.text // context_size
    block = block - block[0] if len(block) else block
    return block, int(block[-1]) + 1 if len(block) else 1
