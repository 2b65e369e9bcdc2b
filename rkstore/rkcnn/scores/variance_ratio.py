"""variance_ratio: how much one dimension of the subset stands out."""

import numpy as np

from rkstore.rkcnn.moments import Doubles, Moments
from rkstore.rkcnn.scores.base import MomentScore
from rkstore.rkcnn.subsets import Indices


class VarianceRatio(MomentScore):
    """Largest variance in the subset divided by the mean variance, between 1 and m.

    Undefined if every dimension is constant. After the RkCNN-SAE code.
    """

    name = "variance_ratio"

    def of_subsets(self, moments: Moments, subsets: Indices) -> Doubles:
        variance = moments.variance[subsets]
        largest, mean = variance.max(axis=1), variance.mean(axis=1)
        return np.where(mean > 0, largest / np.where(mean > 0, mean, 1.0), np.nan)
