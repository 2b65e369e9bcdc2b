"""Moments of every dimension, and their covariance, in one pass over the rows."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Precision = type[np.float32] | type[np.float64]

# Rows raised to powers at once, and rows of the comoment updated at once: 1 MB each for d = 3072,
# so that they stay in the cache between operations.
SLICE_ROWS = 32


@dataclass(frozen=True)
class Moments:
    """Sums of powers of the deviation from the mean, float64, over ``count`` rows.

    ``m2``, ``m3`` and ``m4`` have shape ``(d,)``: the variance is ``m2 / count``.
    ``comoment``, ``(d, d)`` or None, is the sum of the deviations' outer products:
    the covariance is ``comoment / count``. ``largest``, ``(d,)`` or None, is the largest
    absolute value, of the dimension itself and not of its deviation.

    Each block is centred on its own mean before it is squared, and blocks are merged by formulas
    that take no difference of large sums (Chan, Golub & LeVeque 1979; Pébay 2008, SAND2008-6212,
    for the third and fourth power), so an offset of a thousand standard deviations costs no
    precision. A constant dimension has moments of exactly zero.
    """

    count: int
    mean: Doubles
    m2: Doubles
    m3: Doubles
    m4: Doubles
    comoment: Doubles | None = None
    largest: Doubles | None = None

    @classmethod
    def of(cls, x: Floats, comoment: bool = False, largest: bool = False) -> "Moments":
        """Moments of at least one row, ``x`` of shape ``(rows, d)``."""
        return cls.over([x], comoment, largest=largest)

    @classmethod
    def over(
        cls,
        blocks: Iterable[Floats],
        comoment: bool = False,
        precision: Precision = np.float64,
        largest: bool = False,
    ) -> "Moments":
        """Moments of all rows of blocks ``(rows, d)``, one in memory at a time.

        Args:
            precision: of the outer products inside a block; see :class:`OuterProducts`.
                All other sums are float64.

        Raises:
            BadInput: there is no block.
        """
        total: Moments | None = None
        outer: OuterProducts | None = None
        extremes: Doubles | None = None
        for block in blocks:
            part = cls._of_block(block)
            if largest:
                of_block = np.abs(block).max(axis=0).astype(np.float64)
                extremes = of_block if extremes is None else np.maximum(extremes, of_block)
            if comoment:
                outer = outer or OuterProducts(block.shape[1], precision)
                outer.add(block, part, total)
            total = part if total is None else total._merge(part)
        if total is None:
            raise BadInput("there are no rows: give at least one block of activations")
        comoments = None if outer is None else outer.finish()
        return replace(total, comoment=comoments, largest=extremes)

    @classmethod
    def _of_block(cls, x: Floats) -> "Moments":
        slices = [x[start : start + SLICE_ROWS] for start in range(0, len(x), SLICE_ROWS)]
        # Relative to the first row, so that a constant dimension is exactly zero.
        from_first = (np.subtract(rows, x[0], dtype=np.float64).sum(axis=0) for rows in slices)
        mean = x[0] + sum(from_first) / len(x)
        m2, m3, m4 = np.zeros((3, x.shape[1]))
        for rows in slices:
            deviation = rows - mean
            square = deviation * deviation
            m2 += square.sum(axis=0)
            m3 += np.einsum("nd,nd->d", square, deviation)
            m4 += np.einsum("nd,nd->d", square, square)
        return cls(len(x), mean, m2, m3, m4)

    def _merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together, without comoment and largest."""
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
        )

    @property
    def variance(self) -> Doubles:
        """Population variance of each dimension, ``(d,)``."""
        return self.m2 / self.count

    @property
    def covariance(self) -> Doubles:
        """Population covariance of the dimensions, ``(d, d)``.

        Raises:
            BadInput: it was not gathered.
        """
        if self.comoment is None:
            raise BadInput("these moments have no covariance: gather them with comoment=True")
        return self.comoment / self.count


class OuterProducts:
    """Sum of the outer products of all rows' deviations from their common mean.

    Merging two sets of rows adds one outer product to those inside the sets (Chan, Golub
    & LeVeque 1979), so each block is multiplied together with one extra row, and nothing has to be
    centred again. One triangle is computed: half the work of a plain product.

    In float32 that takes half the time of float64. Deviations are first scaled by powers of two,
    so none underflows, and blocks are summed in float64, so the error does not grow with their
    number: entry ``(i, j)`` is off by at most ``b · 2⁻²⁴ · (m2_i · m2_j)^½``
    for blocks of b rows, and by some ``10⁻⁷ · (m2_i · m2_j)^½`` as measured.
    """

    def __init__(self, width: int, precision: Precision) -> None:
        self._lower = np.zeros((width, width))
        self._precision = precision
        from scipy.linalg import get_blas_funcs

        (self._syrk,) = get_blas_funcs(["syrk"], dtype=precision)

    def add(self, x: Floats, part: Moments, before: Moments | None) -> None:
        """Add a block ``(rows, d)`` with its moments, given the moments of earlier rows."""
        merged = np.zeros(x.shape[1])
        if before is not None:
            weight = before.count * part.count / (before.count + part.count)
            merged = (part.mean - before.mean) * weight**0.5
        exponent = np.frexp(np.sqrt((part.m2 + merged**2) / part.count))[1]
        scale = np.ldexp(1.0, -exponent)
        rows = np.empty((len(x) + 1, x.shape[1]), self._precision)
        for start in range(0, len(x), SLICE_ROWS):
            here = slice(start, min(start + SLICE_ROWS, len(x)))
            rows[here] = (x[here] - part.mean) * scale
        rows[-1] = merged * scale
        # In Fortran order BLAS reads the transpose, and its upper triangle is our lower.
        self._add_scaled(self._syrk(1.0, rows.T).T, np.ldexp(1.0, exponent))

    def finish(self) -> Doubles:
        """The sum, with both triangles, ``(d, d)``."""
        self._lower += np.tril(self._lower, -1).T
        return self._lower

    def _add_scaled(self, product: NDArray[np.floating], scale: Doubles) -> None:
        for start in range(0, len(product), SLICE_ROWS):
            here = slice(start, start + SLICE_ROWS)
            left = slice(0, here.stop)
            self._lower[here, left] += product[here, left] * scale[left] * scale[here, None]
