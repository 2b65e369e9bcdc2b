"""projection_negentropy: how far the direction is from a normal distribution."""

import math

import numpy as np

from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.scores.base import DirectionScore, standardised

# E[log cosh ν] of a standard normal ν, by quadrature.
OF_A_NORMAL = 0.37456720749143


class ProjectionNegentropy(DirectionScore):
    """``(E[log cosh z] - E[log cosh ν])²`` of the standardised projection ``z``, ν normal.

    Proportional to an approximation of negentropy, which is zero for the normal distribution
    only (Hyvärinen 1998, "New approximations of differential entropy for independent component
    analysis and projection pursuit", NIPS 10; Hyvärinen & Oja 2000, Neural Networks 13,
    equations 25 and 26). A few extreme rows affect it less than a fourth power.
    """

    name = "projection_negentropy"

    def of_projections(self, projections: Floats) -> Doubles:
        z = np.abs(standardised(projections))
        # log cosh z without the overflow of cosh.
        log_cosh = z + np.log1p(np.exp(-2 * z)) - math.log(2)
        negentropy: Doubles = (log_cosh.mean(axis=0) - OF_A_NORMAL) ** 2
        return negentropy
