"""Moments of every dimension, and how dimensions vary together, in one pass over the rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums of powers of the deviation from the mean, float64, over ``count`` rows.

    ``m2``, ``m3`` and ``m4`` have shape ``(d,)``: the variance is ``m2 / count``.
    ``comoment``, ``(d, d)`` or None, is the sum of the deviations' outer products:
    the covariance is ``comoment / count``.

    Each block is centred on its own mean before it is squared, and blocks are merged
    by formulas that take no difference of large sums (Chan, Golub & LeVeque 1979;
    Pébay 2008, SAND2008-6212, for the third and fourth power), so an offset of a
    thousand standard deviations costs no digits. A constant dimension has moments of
    exactly zero. Products are float64 throughout: in float32 they would be twice as
    fast, but small activations would underflow when squared.
    """

    count: int
    mean: Doubles
    m2: Doubles
    m3: Doubles
    m4: Doubles
    comoment: Doubles | None = None

    @classmethod
    def of(cls, x: Floats, comoment: bool = False) -> "Moments":
        """Moments of at least one row, ``x`` of shape ``(rows, d)``."""
        # Measured from the first row, so that a constant dimension is zero without rounding.
        deviation = np.subtract(x, x[0], dtype=np.float64)
        shift = deviation.mean(axis=0)
        deviation -= shift
        square = deviation**2
        return cls(
            count=len(x),
            mean=x[0] + shift,
            m2=square.sum(axis=0),
            m3=np.einsum("nd,nd->d", square, deviation),
            m4=np.einsum("nd,nd->d", square, square),
            comoment=deviation.T @ deviation if comoment else None,
        )

    @classmethod
    def over(cls, blocks: Iterable[Floats], comoment: bool = False) -> "Moments":
        """Moments of all rows of blocks ``(rows, d)``, of which one is in memory at a time.

        Raises:
            BadInput: there is no block.
        """
        parts = (cls.of(block, comoment) for block in blocks)
        first = next(parts, None)
        if first is None:
            raise BadInput("there are no rows: give at least one block of activations")
        return reduce(cls.merge, parts, first)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together."""
        a, b, n = self.count, other.count, self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count=n,
            mean=self.mean + delta * (b / n),
            m2=self.m2 + other.m2 + delta**2 * (a * b / n),
            m3=self.m3
            + other.m3
            + delta**3 * (a * b * (a - b) / n**2)
            + 3 * delta * (a * other.m2 - b * self.m2) / n,
            m4=self.m4
            + other.m4
            + delta**4 * (a * b * (a**2 - a * b + b**2) / n**3)
            + 6 * delta**2 * (a**2 * other.m2 + b**2 * self.m2) / n**2
            + 4 * delta * (a * other.m3 - b * self.m3) / n,
            comoment=self._merged_comoment(other, delta * (a * b / n) ** 0.5),
        )

    def _merged_comoment(self, other: "Moments", shift: Doubles) -> Doubles | None:
        if self.comoment is None or other.comoment is None:
            return None
        # Added in place: for d = 3072 each intermediate sum would take 75 MB more.
        total = np.outer(shift, shift)
        total += self.comoment
        total += other.comoment
        return total

    @property
    def variance(self) -> Doubles:
        """Population variance of each dimension, ``(d,)``."""
        return self.m2 / self.count

    @property
    def covariance(self) -> Doubles:
        """Population covariance of the dimensions, ``(d, d)``.

        Raises:
            BadInput: it was not asked for.
        """
        if self.comoment is None:
            raise BadInput("these moments have no covariance: gather them with comoment=True")
        return self.comoment / self.count
