"""random: a score that ignores the data, the control for all others."""

from typing import TYPE_CHECKING

from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.scores.base import Comparison, RowScore

if TYPE_CHECKING:
    from torch import Tensor


class Random(RowScore):
    """Uniform between 0 and 1, from the seed of the probe: any ``r`` of the ``h`` subsets.

    The gain of another score over this one is due to scoring, not to the subsets.
    """

    name = "random"

    def check(self, comparison: Comparison) -> None:
        """Nothing is compared, so any input is accepted."""

    def of_subsets(
        self,
        x: "Tensor",  # noqa: ARG002
        subsets: "Tensor",
        comparison: Comparison,
    ) -> Doubles:
        return comparison.generator.random(len(subsets))
