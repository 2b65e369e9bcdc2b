"""max_activation: the largest value anywhere in the subset."""

from rkstore.rkcnn.moments import Doubles, Moments
from rkstore.rkcnn.scores.base import MomentScore
from rkstore.rkcnn.subsets import Indices


class MaxActivation(MomentScore):
    """Largest absolute value of any row in any dimension of the subset.

    Of the activation itself, not of its deviation from the mean; a single row determines it. From
    the RkCNN-SAE code, which calls it a simple baseline.
    """

    name = "max_activation"
    needs_largest = True

    def of_subsets(self, moments: Moments, subsets: Indices) -> Doubles:
        assert moments.largest is not None  # guaranteed by needs_largest
        largest: Doubles = moments.largest[subsets].max(axis=1)
        return largest
