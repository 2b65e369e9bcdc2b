"""projection_kurtosis: how much rare large values dominate the direction."""

from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.scores.base import DirectionScore, standardised


class ProjectionKurtosis(DirectionScore):
    """Excess kurtosis ``E[z⁴] - 3`` of the standardised projection ``z``.

    Unlike ``kurtosis`` it depends on how the dimensions of a subset vary together. For a sum of
    many independent dimensions it tends to 0.
    """

    name = "projection_kurtosis"

    def of_projections(self, projections: Floats) -> Doubles:
        square = standardised(projections) ** 2
        kurtosis: Doubles = (square**2).mean(axis=0) - 3
        return kurtosis
