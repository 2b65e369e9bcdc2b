"""principal: the directions in which a subset varies most, as published."""

import numpy as np

from rkstore.rkcnn.directions.base import Directions, blocks_of, check_rank, eigenvectors, unit
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices
from rkstore.settings import option


class Principal(Directions):
    """The first right singular vectors of the centred activations of each subset.

    They are the last eigenvectors of its block of the covariance; the first is what the
    RkCNN-SAE code takes. With ``whiten`` it is the block of the correlations, so that no dimension
    dominates by scale alone, and the vector is divided by the standard deviations: projecting on
    it equals projecting the standardised rows. (After full whitening all directions would have the
    same variance, and none would be principal.)
    """

    name = "principal"
    whiten: bool = option(
        False, "Scale dimensions to variance 1 before finding principal directions."
    )

    def axes(
        self,
        covariance: Doubles,
        subsets: Indices,
        rows: Floats | None,  # noqa: ARG002  the covariance is enough
        components: int = 1,
    ) -> Doubles:
        blocks = blocks_of(covariance, subsets)
        deviation = np.ones(subsets.shape)
        if self.whiten:
            variance = np.diagonal(blocks, axis1=1, axis2=2)
            deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
            blocks = blocks / deviation[:, :, None] / deviation[:, None, :]
        values, vectors = eigenvectors(blocks)
        if components > 1:
            check_rank(values, subsets, components)
        last = vectors[:, :, : -components - 1 : -1].transpose(0, 2, 1)
        return unit(last / deviation[:, None, :]) if self.whiten else last
