"""Uniform steps proportional to the spread of each dimension; outliers are kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.apart import Apart
from rkstore.store.codecs.base import Encoded, Floats, Stepped
from rkstore.store.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

# Rows at a time: a block fits in the processor's cache.
BLOCK_ROWS = 64

# Bits of an entry that is kept apart: a float32, and its position.
ENTRY_BITS = 43

# About how many rows decide which of two ranges takes fewer bits.
SAMPLE_ROWS = 64

# Codes left below the minimum seen, if the range of codes starts there.
MARGIN = 2

# A deviation above this could make a code decode to infinity.
LARGEST_DEVIATION = 1e36

SMALLEST = np.finfo(np.float32).tiny


class Spread(Stepped):
    """Integers with ``value = offset + scale · code``, code 0 to ``codes - 1``.

    ``scale`` is ``step`` standard deviations of the dimension, so the error of every dimension is
    the same fraction of its variance, ``step² / 12`` (the variance of a uniform distribution as
    wide as a step), whatever its extremes. The few values out of range and the massive rows are
    kept apart: nothing is clipped, and any other value is off by at most half a step.

    The mean has the middle code in all dimensions, or the minimum has the first, as after a GELU:
    then codes mean the same in every dimension, and an entropy coder that ignores dimensions loses
    little.
    """

    keeps_apart = True
    codes: int
    """A power of two, 256 at most."""
    step: float
    """In standard deviations."""

    def fit(self, x: Floats) -> dict[str, Floats]:
        known = Statistics.of(x)
        mean, deviation = known.mean, np.sqrt(known.variance)
        if not (deviation < LARGEST_DEVIATION).all():
            raise BadInput(f"{self.name} cannot hold values 3.4e38 apart: use --codec float32")
        scale = (self.step * deviation).astype(np.float32)
        # Below it, 1 / scale would be infinite: such a dimension counts as constant.
        scale[scale < SMALLEST] = 0
        offsets = [mean - self.codes // 2 * scale, known.min - MARGIN * scale]
        starts = [offset.astype(np.float32) for offset in offsets]
        # An odd stride, because blocks start alike, at even positions.
        sample = x[:: len(x) // SAMPLE_ROWS | 1]
        # A constant dimension is its offset.
        best = min(starts, key=lambda offset: self._bits(sample, offset, scale))
        return {"offset": np.where(scale > 0, best, mean.astype(np.float32)), "scale": scale}

    def encode(
        self, x: Floats, side: dict[str, Floats], massive: NDArray[np.bool_] | None = None
    ) -> Encoded:
        offset, scale = side["offset"], side["scale"]
        constant = np.flatnonzero(scale == 0)
        constant = constant[(x[:, constant] != offset[constant]).any(axis=0)]
        massive = np.zeros(len(x), bool) if massive is None else massive
        codes = np.empty(x.shape, self.dtype)
        steps_of, apart = _Steps(offset, scale), []
        held = np.empty((2, BLOCK_ROWS, x.shape[1]), bool)
        for start in range(0, len(x), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            steps = steps_of(x[rows])
            if len(constant):  # one value has a code, and there are others
                steps[:, constant] = np.where(x[rows, constant] == offset[constant], 0, -1)
            steps[massive[rows]] = self.codes // 2
            below, above = held[:, : len(steps)]
            np.less(steps, 0, out=below)
            np.greater_equal(steps, self.codes, out=above)
            beyond = np.flatnonzero(np.logical_or(below, above, out=below))
            steps.reshape(-1)[beyond] = self.codes // 2
            np.copyto(codes[rows], steps, casting="unsafe")
            apart.append(beyond + start * x.shape[1])
        return Encoded(codes, side, Apart.of(x, np.concatenate(apart), massive))

    encodes_tensors = True

    def encode_tensor(
        self, x: Tensor, side: Mapping[str, Tensor], massive: Tensor
    ) -> tuple[Tensor, Tensor]:
        import torch

        offset, scale, middle = side["offset"], side["scale"], self.codes // 2
        per_step = torch.where(scale > 0, 1 / scale, 0)
        steps = (x - offset).mul_(per_step).round_()
        # A constant dimension has one value with a code.
        steps.masked_fill_((scale == 0) & (x != offset), -1)
        steps.masked_fill_(massive.unsqueeze(1), middle)
        beyond = (steps < 0) | (steps >= self.codes)
        return steps.masked_fill_(beyond, middle).to(torch.uint8), beyond

    def _bits(self, x: Floats, offset: Floats, scale: Floats) -> float:
        """Estimated bits a value: entropy of the codes, and the values kept apart."""
        steps = _Steps(offset, scale, len(x))(x)
        outside = (steps < 0) | (steps >= self.codes)
        codes = np.where(outside, self.codes, steps).astype(np.uint16).reshape(-1)
        *counts, beyond = np.bincount(codes, minlength=self.codes + 1)
        share = np.array([count for count in counts if count]) / codes.size
        return float(-(share * np.log2(share)).sum() + ENTRY_BITS * beyond / codes.size)


class _Steps:
    """Distance of values from the offset in whole steps, as floats, also out of range.

    The memory is reused: mapping fresh memory of this size takes as long.
    """

    def __init__(self, offset: Floats, scale: Floats, rows: int = BLOCK_ROWS) -> None:
        self._offset = offset
        self._per_step = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        self._steps = np.empty((rows, len(scale)), np.float32)

    def __call__(self, x: Floats) -> Floats:
        """The steps of rows ``(n, d_in)``; the next call overwrites them."""
        steps = self._steps[: len(x)]
        with np.errstate(over="ignore"):
            np.subtract(x, self._offset, out=steps)
            steps *= self._per_step
        return np.rint(steps, out=steps)
