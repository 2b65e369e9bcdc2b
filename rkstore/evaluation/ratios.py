"""Means over rows as ratios of sums over documents, with their intervals.

Rows of one document are not independent, so the document is what an interval is made of: the
cluster-robust variance, by linearisation (Cochran 1977, "Sampling Techniques", §6)::

    R = Σ A_d / Σ B_d        Var(R) = D / (D - 1) · Σ_d (A_d - R B_d)² / (Σ B_d)²

and the interval is ``R ± t(0.975, D - 1) √Var(R)``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# With fewer documents an interval covers less than it says.
LEAST_DOCUMENTS = 20

LEVEL = 0.95

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval, which is missing if there are few documents."""

    value: float
    low: float | None = None
    high: float | None = None


def ratio(a: NDArray[Any], b: NDArray[Any], documents: Integers) -> Estimate | None:
    """``Σ a / Σ b`` over rows, each ``(n,)``; None if there is no such number.

    Args:
        documents: of each row, or whatever the interval is by.
    """
    _, of_row = np.unique(documents, return_inverse=True)
    above, below = (np.zeros(int(of_row.max()) + 1) for _ in range(2))
    np.add.at(above, of_row, a)
    np.add.at(below, of_row, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(above.sum() / below.sum())
    if not np.isfinite(value):
        return None
    if len(above) < LEAST_DOCUMENTS:
        return Estimate(value)
    return Estimate(value, *interval(above, below))


def interval(a: Doubles, b: Doubles) -> tuple[float, float]:
    """The 95 % interval of ``Σ a / Σ b``, with a number of each for every document ``(D,)``."""
    from scipy.stats import t

    count, value = len(a), a.sum() / b.sum()
    error = (count / (count - 1) * np.square((a - value * b) / b.sum()).sum()) ** 0.5
    reach = t.ppf((1 + LEVEL) / 2, count - 1) * error
    return float(value - reach), float(value + reach)
