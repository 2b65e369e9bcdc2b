"""Rows under a linear map: rotated, or with some directions projected out."""

from dataclasses import dataclass

import numpy as np

from rkstore.rkcnn.directions.base import unit
from rkstore.rkcnn.moments import Doubles, Floats, Moments
from rkstore.rkcnn.rotation import Rotation
from rkstore.rkcnn.subsets.base import NO_ROTATION

# A column with less than this fraction of the largest variance is only rounding error.
NOTHING = 1e-9


@dataclass(frozen=True)
class Without:
    """The projection ``P`` that removes the span of orthonormal columns ``(d, rank)``."""

    span: Doubles

    def of(self, rows: Doubles) -> Doubles:
        """``rows @ P`` of ``(n, d)``."""
        rest: Doubles = rows - rows @ self.span @ self.span.T
        return rest

    def back(self, rows: Doubles) -> Doubles:
        """``rows @ P.T``, which is the same."""
        return self.of(rows)


# A matrix ``A``, ``(d, d)``, that need not be stored.
LinearMap = Rotation | Without


@dataclass(frozen=True)
class View:
    """Everything that a probe keeps of its rows: statistics and a sample.

    Scores and directions use single columns and small groups of them. Under a rotation, the
    columns are the vectors of another basis, and the same code applies.
    """

    moments: Moments
    """Of the columns, over all rows."""
    sample: Floats
    """``(rows, d)``, centred on the mean of all rows."""
    maps: tuple[LinearMap, ...] = ()
    """The maps from the dimensions to the columns, in order."""

    def through(self, map: LinearMap) -> "View":
        """The view of ``x @ A``.

        Its variances follow from the covariance of all rows. The third and fourth moments do not;
        they are scaled from the sample, as if it were distributed like all rows.
        """
        assert self.moments.comoment is not None
        count = self.moments.count
        comoment = map.of(map.of(self.moments.comoment).T)
        varies = np.diag(comoment) > NOTHING * self.moments.m2.max()
        comoment *= varies
        comoment *= varies[:, None]
        m2 = np.diag(comoment).copy()
        sample = (map.of(self.sample.astype(np.float64)) * varies).astype(np.float32)
        shape = Moments.of(sample)
        spread = np.where(shape.variance > 0, np.sqrt(shape.variance), np.inf)
        ratio = np.sqrt(m2 / count) / spread
        mean = map.of(self.moments.mean[None])[0]
        moments = Moments(
            count=count,
            mean=mean,
            m2=m2,
            m3=shape.m3 / shape.count * ratio**3 * count,
            m4=shape.m4 / shape.count * ratio**4 * count,
            comoment=comoment,
            largest=np.abs(sample + mean).max(axis=0),
        )
        return View(moments, sample, (*self.maps, map))

    def rotated(self, number: int) -> "View":
        """The view through the rotation of that number; this one if it is none."""
        return self if number == NO_ROTATION else self.through(Rotation(len(self), number))

    def back(self, directions: Floats) -> Floats:
        """Directions ``(r, d)`` of this view as unit vectors of the dimensions."""
        if not self.maps:
            return directions
        mapped = directions.astype(np.float64)
        for map in reversed(self.maps):
            mapped = map.back(mapped)
        return unit(mapped).astype(np.float32)

    def __len__(self) -> int:
        return int(self.sample.shape[1])


def orthonormal(directions: Floats) -> Doubles:
    """An orthonormal basis ``(d, rank)`` of the span of directions ``(r, d)``."""
    _, sizes, right = np.linalg.svd(directions.astype(np.float64), full_matrices=False)
    rank = int((sizes > 1e-6 * sizes[0]).sum())
    return right[:rank].T
