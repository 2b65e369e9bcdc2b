"""projection_skewness: how one-sided the direction's large values are."""

from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.scores.base import DirectionScore, standardised


class ProjectionSkewness(DirectionScore):
    """Skewness ``E[z³]`` of the standardised projection ``z``.

    The sign of a direction is the one that makes it positive, so it measures how far the
    projection is from symmetric: a latent that fires only on positive values needs one side.
    """

    name = "projection_skewness"

    def of_projections(self, projections: Floats) -> Doubles:
        z = standardised(projections)
        skewness: Doubles = (z**3).mean(axis=0)
        return skewness
