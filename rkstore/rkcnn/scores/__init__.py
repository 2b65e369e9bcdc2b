"""Scores: how promising a subset of dimensions is; the larger the better. One file each.

To add one, write its file and add it to ``SCORES``.
"""

from rkstore.errors import BadInput
from rkstore.rkcnn.scores.base import Comparison, DirectionScore, MomentScore, RowScore
from rkstore.rkcnn.scores.knn import KNN
from rkstore.rkcnn.scores.kurtosis import Kurtosis
from rkstore.rkcnn.scores.max_activation import MaxActivation
from rkstore.rkcnn.scores.projection_kurtosis import ProjectionKurtosis
from rkstore.rkcnn.scores.projection_negentropy import ProjectionNegentropy
from rkstore.rkcnn.scores.projection_skewness import ProjectionSkewness
from rkstore.rkcnn.scores.random import Random
from rkstore.rkcnn.scores.separation import Separation
from rkstore.rkcnn.scores.variance_ratio import VarianceRatio

Score = MomentScore | RowScore | DirectionScore

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Kurtosis(),
        KNN(),
        VarianceRatio(),
        Separation(),
        MaxActivation(),
        Random(),
        ProjectionKurtosis(),
        ProjectionNegentropy(),
        ProjectionSkewness(),
    )
}


def score_named(name: str) -> Score:
    """Return the score of that name.

    Raises:
        BadInput: no score has that name.
    """
    if name not in SCORES:
        raise BadInput(f"unknown score '{name}': choose one of {', '.join(SCORES)}")
    return SCORES[name]


__all__ = [
    "SCORES",
    "Comparison",
    "DirectionScore",
    "MomentScore",
    "RowScore",
    "Score",
    "score_named",
]
