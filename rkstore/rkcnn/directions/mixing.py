"""mixing: how the independent components of a subset write to its dimensions."""

import numpy as np

from rkstore.rkcnn.directions.base import blocks_of, unit
from rkstore.rkcnn.directions.ica import ICA
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices


class Mixing(ICA):
    """Columns of the mixing matrix, where ``ica`` gives rows of the unmixing matrix.

    For a component with the projection ``w`` it is ``C w``, ``C`` the covariance of the subset:
    how each dimension covaries with the component (Haufe et al. 2014, "On the interpretation of
    weight vectors of linear models in multivariate neuroimaging", NeuroImage 87, theorem 1).
    ``w`` reads a component and is orthogonal to all others; ``C w`` writes it, as the decoder of a
    dictionary does. For principal directions the two are the same.
    """

    name = "mixing"

    def axes(
        self, covariance: Doubles, subsets: Indices, rows: Floats | None, components: int = 1
    ) -> Doubles:
        projections = super().axes(covariance, subsets, rows, components)
        return unit(np.matmul(projections, blocks_of(covariance, subsets)))
