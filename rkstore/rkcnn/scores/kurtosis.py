"""kurtosis: how much rare large values dominate the single dimensions."""

import numpy as np

from rkstore.rkcnn.moments import Doubles, Moments
from rkstore.rkcnn.scores.base import MomentScore
from rkstore.rkcnn.subsets import Indices


class Kurtosis(MomentScore):
    """Mean over the subset of the excess kurtosis ``E[(x - μ)⁴] / σ⁴ - 3`` of each dimension.

    A constant dimension has none and is left out; the score is undefined if all are.
    The mean combines scores of single dimensions, so it ignores their dependence, and it depends
    on the basis. From the RkCNN-SAE code.
    """

    name = "kurtosis"

    def of_subsets(self, moments: Moments, subsets: Indices) -> Doubles:
        varies = moments.m2 > 0
        square = np.where(varies, moments.variance, 1.0) ** 2
        excess = np.where(varies, moments.m4 / moments.count / square - 3, 0.0)
        total, counted = excess[subsets].sum(axis=1), varies[subsets].sum(axis=1)
        return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
