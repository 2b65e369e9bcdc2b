"""bases: columns of random rotations, which favour no dimension."""

import math

import numpy as np

from rkstore.rkcnn.subsets.base import Indices, Subsets


class Bases(Subsets):
    """Orthonormal bases ``(d, m)``: ``⌊d / m⌋`` groups of ``m`` columns of each random rotation.

    Results then do not depend on the basis of the activations, and a direction is not confined to
    ``m`` dimensions. Moments of columns are not moments of dimensions: their variances come from
    the covariance of all rows, the shape of their distribution from the sample of rows.
    """

    name = "bases"

    def distinct(self, d: int, m: int) -> float:
        return math.inf if m < d else 1

    def draw(self, d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
        h, groups = int(min(h, self.distinct(d, m))), d // m
        # Numbers are not consecutive, so that different seeds have different rotations.
        numbers = generator.choice(2**31 - 1, -(-h // groups), replace=False) + 1
        columns = np.arange(groups * m).reshape(groups, m)
        every = numbers[:, None, None] * d + columns
        return every.reshape(-1, m)[:h].astype(np.int64)
