"""Scores: how promising a subset of dimensions is; the larger the better. One file each.

To add one, write its file, with the options that it needs, and add it to ``SCORES``.
"""

from typing import Any

from rkstore.rkcnn.scores.base import Score
from rkstore.rkcnn.scores.knn import KNN
from rkstore.rkcnn.scores.kurtosis import Kurtosis
from rkstore.rkcnn.scores.max_activation import MaxActivation
from rkstore.rkcnn.scores.projection_kurtosis import ProjectionKurtosis
from rkstore.rkcnn.scores.projection_negentropy import ProjectionNegentropy
from rkstore.rkcnn.scores.projection_skewness import ProjectionSkewness
from rkstore.rkcnn.scores.random import Random
from rkstore.rkcnn.scores.separation import Separation
from rkstore.rkcnn.scores.variance_ratio import VarianceRatio
from rkstore.settings import member_named

SCORES: dict[str, type[Score]] = {
    score.name: score
    for score in (
        Kurtosis,
        KNN,
        VarianceRatio,
        Separation,
        MaxActivation,
        Random,
        ProjectionKurtosis,
        ProjectionNegentropy,
        ProjectionSkewness,
    )
}
"""What ``--score`` offers, by name."""


def score_named(name: str | Score, **options: Any) -> Score:
    """The score of that name, with its own options: :func:`member_named`."""
    return member_named("score", SCORES, name, options)


__all__ = ["SCORES", "Score", "score_named"]
