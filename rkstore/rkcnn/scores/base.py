"""The interface of scores, in three kinds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles, Floats, Moments
from rkstore.rkcnn.subsets import Indices
from rkstore.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


class Score(Settings, ABC):
    """How promising a subset is; the larger the better. Its fields are its options."""

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False


class MomentScore(Score):
    """A score computed from the moments of single dimensions.

    All rows count, and all subsets are scored at once.
    """

    needs_largest: ClassVar[bool] = False

    @abstractmethod
    def of_subsets(self, moments: Moments, subsets: Indices) -> Doubles:
        """Scores ``(h,)`` of subsets ``(h, m)``; NaN where it is undefined."""


@dataclass(frozen=True)
class Comparison:
    """The inputs of a row score besides the values of the rows."""

    rows: int
    labels: "Tensor | None" = None
    """``(rows,)`` int64: classes counted from 0, each of which occurs."""
    asking: "Tensor | None" = None
    """``(q,)`` int64: the query rows; None for all."""
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    """For a score that draws random numbers."""

    @cached_property
    def classes(self) -> int:
        """How many classes the labels have; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


class RowScore(Score):
    """A score that compares rows with each other, computed on a sample of them."""

    def asking(self, rows: int, generator: np.random.Generator) -> Indices | None:  # noqa: ARG002
        """Which of the rows compared are queries; None for all."""
        return None

    def check(self, comparison: Comparison) -> None:
        """Check that the score can be computed, before any activation is read.

        Raises:
            BadInput: labels are missing or all the same.
        """
        if self.needs_labels and comparison.labels is None:
            raise BadInput(
                f"the {self.name} score needs labels: give one a row, or a column's name"
            )
        if comparison.classes == 1:
            raise BadInput(
                f"the {comparison.rows} rows compared have the same label, which the {self.name} "
                "score cannot use: give labels of at least two classes"
            )

    @abstractmethod
    def of_subsets(self, x: "Tensor", subsets: "Tensor", comparison: Comparison) -> Doubles:
        """Scores ``(h,)`` of subsets ``(h, m)`` of the rows ``(rows, d)``; NaN if undefined."""


class DirectionScore(Score):
    """A score of the distribution of a sample of the rows along a direction.

    A subset has the score of its direction, or of the best of several.
    """

    @abstractmethod
    def of_projections(self, projections: Floats) -> Doubles:
        """Scores ``(h,)`` of the columns of ``(rows, h)``; NaN where they do not vary."""


def standardised(projections: Floats) -> Doubles:
    """Columns of mean 0 and variance 1, ``(rows, h)`` float64; NaN if one does not vary."""
    deviation = projections - projections.mean(axis=0, dtype=np.float64)
    spread = deviation.std(axis=0)
    unit: Doubles = deviation / np.where(spread > 0, spread, np.nan)
    return unit
