"""Scores: how promising a subset of dimensions is; the larger the better. One file each.

To add one, write its file and add it to ``SCORES``.
"""

from rkstore.errors import BadInput
from rkstore.rkcnn.scores.base import Comparison, MomentScore, RowScore
from rkstore.rkcnn.scores.knn import KNN
from rkstore.rkcnn.scores.kurtosis import Kurtosis
from rkstore.rkcnn.scores.separation import Separation
from rkstore.rkcnn.scores.variance_ratio import VarianceRatio

SCORES: dict[str, MomentScore | RowScore] = {
    score.name: score for score in (Kurtosis(), KNN(), VarianceRatio(), Separation())
}


def score_named(name: str) -> MomentScore | RowScore:
    """Return the score of that name.

    Raises:
        BadInput: no score has that name.
    """
    if name not in SCORES:
        raise BadInput(f"unknown score '{name}': choose one of {', '.join(SCORES)}")
    return SCORES[name]


__all__ = ["SCORES", "Comparison", "MomentScore", "RowScore", "score_named"]
