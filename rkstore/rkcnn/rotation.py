"""Random rotations, each known by its number."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# Up to this size a rotation is drawn uniformly, which costs d³; a structured one costs d² log d
# for d rows, and is random enough only for large d.
LARGEST_DENSE = 256


@dataclass(frozen=True)
class Rotation:
    """A random rotation or reflection ``Q``, ``(d, d)``: its columns are an orthonormal basis.

    Up to 256 dimensions it is uniform. Beyond, it is three rounds of random signs and a cosine
    transform, which mixes all dimensions alike (Yu, Suresh, Choromanski,
    Holtmann-Rice & Kumar 2016, "Orthogonal random features", NIPS 29, section 4, with the
    Hadamard transform, which exists only for some d).
    """

    d: int
    number: int

    def of(self, rows: Doubles) -> Doubles:
        """``rows @ Q`` of ``(n, d)``."""
        if self.d <= LARGEST_DENSE:
            return rows @ _uniform(self.d, self.number)
        from scipy.fft import dct

        for signs in self._signs:
            rows = dct(rows * signs, norm="ortho")
        return rows

    def back(self, rows: Doubles) -> Doubles:
        """``rows @ Q.T`` of ``(n, d)``."""
        if self.d <= LARGEST_DENSE:
            return rows @ _uniform(self.d, self.number).T
        from scipy.fft import idct

        for signs in self._signs[::-1]:
            rows = idct(rows, norm="ortho") * signs
        return rows

    def columns(self, which: NDArray[np.int64]) -> Doubles:
        """These columns of ``Q``, ``(d, m)``."""
        rows = np.zeros((len(which), self.d))
        rows[np.arange(len(which)), which] = 1
        return self.back(rows).T

    @property
    def _signs(self) -> Doubles:
        return np.random.default_rng(self.number).choice([-1.0, 1.0], (3, self.d))


@functools.lru_cache(maxsize=4)
def _uniform(d: int, number: int) -> Doubles:
    """An orthogonal matrix, uniform over all of them: QR of a normal one, with the diagonal of R
    made positive (Mezzadri 2007, "How to generate random matrices from the classical compact
    groups", Notices of the AMS 54(5))."""
    q, r = np.linalg.qr(np.random.default_rng(number).standard_normal((d, d)))
    columns: Doubles = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    columns.setflags(write=False)
    return columns
