"""Paired comparisons of runs: differences, intervals, significance."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.record import Row

Doubles = NDArray[np.float64]

# Up to this many pairs all sign patterns are tried, beyond it a sample of them.
EXACT_PAIRS = 12
DRAWS = 10_000


class Arms:
    """The runs of a comparison. A pair is two arms of the same layer and seed.

    Args:
        rows: each with a ``layer``, a ``seed``, and its arm.
        arm: the key of the arm.
    """

    def __init__(self, rows: Iterable[Row], arm: str = "init") -> None:
        self.runs = {(row[arm], row["layer"], row["seed"]): row for row in rows}
        self.layers = sorted({layer for _, layer, _ in self.runs})

    def values(self, arm: str, layer: int, key: str) -> list[float]:
        """A metric for all seeds of an arm, in one layer."""
        return [float(row[key]) for (a, at, _), row in self.runs.items() if (a, at) == (arm, layer)]

    def pairs(self, arm: str, against: str, layer: int | None = None) -> list[tuple[Row, Row]]:
        """The runs of ``against`` and of ``arm``, for every seed that has both."""
        return [
            (self.runs[against, at, seed], row)
            for (name, at, seed), row in self.runs.items()
            if name == arm and layer in (None, at) and (against, at, seed) in self.runs
        ]

    def differences(
        self, arm: str, against: str, key: str, layer: int | None = None
    ) -> list[float]:
        """``arm`` minus ``against``, pair by pair."""
        return [float(row[key] - base[key]) for base, row in self.pairs(arm, against, layer)]

    def noise(self, arm: str, key: str) -> float | None:
        """Standard deviation between seeds, mean over layers; None with one seed."""
        found = [deviation(self.values(arm, layer, key)) for layer in self.layers]
        known = [sd for sd in found if sd is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Paired:
    """The difference between two arms, over their pairs."""

    mean: float
    low: float
    high: float
    """Ends of the 95 % interval of the mean."""
    p: float
    """Of the sign-flip test, two-sided."""
    pairs: int


def compare(differences: Sequence[float], seed: int = 0) -> Paired:
    """Mean of paired differences, its bootstrap interval and its sign-flip test."""
    d = np.asarray(differences, np.float64)
    low, high = interval([d], seed)
    return Paired(float(d.mean()), low, high, sign_flip_test(d, seed), len(d))


def interval(groups: Sequence[Doubles], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over groups of the means within them.

    Pairs are resampled within each group, ``(pairs,)`` each; groups are not, because a model has
    all its layers, not a sample of them (Efron & Tibshirani 1993, chapters 8 and 13).
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(DRAWS)
    for d in groups:
        chosen = generator.integers(0, len(d), (DRAWS, len(d)))
        means += d[chosen].mean(axis=1) / len(groups)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Small:
    """The mean of a few values, and how far its 95 % interval reaches to either side."""

    mean: float
    half: float


def small_sample(values: Sequence[float]) -> Small:
    """Student's interval of the mean, for samples too small for :func:`interval`.

    With three values it is 2.5 standard deviations to either side, and it covers the mean 95 % of
    the time if they are normal (Student 1908); a bootstrap of three does in 3 of 4 cases.

    Raises:
        BadInput: there are fewer than two values.
    """
    from scipy.stats import t

    sd = deviation(values)
    if sd is None:
        raise BadInput("one run says nothing of how runs vary: make at least two, of other seeds")
    half = float(t.ppf(0.975, len(values) - 1)) * sd / len(values) ** 0.5
    return Small(sum(values) / len(values), half)


def coverage(pairs: int, trials: int = 400) -> float:
    """How often the :func:`interval` of that many normal samples covers the mean: 0.95 if many."""
    generator = np.random.default_rng(0)
    ends = (interval([generator.normal(size=pairs)], trial) for trial in range(trials))
    return sum(low <= 0 <= high for low, high in ends) / trials


def sign_flip_test(d: Doubles, seed: int = 0) -> float:
    """Fraction of sign patterns under which the mean is at least as far from zero.

    If two arms do not differ, either sign of each difference is equally likely (Fisher 1935).
    Exact up to ``EXACT_PAIRS`` pairs, where the smallest p is 2 / 2ⁿ.
    """
    if len(d) <= EXACT_PAIRS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(d))))
    else:
        drawn = np.random.default_rng(seed).choice([1.0, -1.0], (DRAWS, len(d)))
        signs = np.concatenate([np.ones((1, len(d))), drawn])
    flipped = np.abs(signs @ d)
    # Sums of the same numbers in another order may differ in the last digit.
    return float((flipped >= abs(d.sum()) * (1 - 1e-12)).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """p adjusted for the number of tests (Holm 1979): the chance of any false finding."""
    order = np.argsort(ps)
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None of fewer than two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(spread**0.5)


def described(values: Sequence[float]) -> Row:
    """Mean, standard deviation, best and worst; None where there are too few values."""
    if not values:
        return {"count": 0, "mean": None, "sd": None, "best": None, "worst": None}
    mean, ends = sum(values) / len(values), {"best": max(values), "worst": min(values)}
    return {"count": len(values), "mean": mean, "sd": deviation(values)} | ends


def improvement(baseline: Row, arm: Row) -> float | None:
    """Reduction of dead latents in per cent; None if the baseline has none."""
    if not baseline["dead"]:
        return None
    return float(100 * (baseline["dead"] - arm["dead"]) / baseline["dead"])
