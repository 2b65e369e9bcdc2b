"""Paired differences: how large, how certain, and how many tests were made."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# All sign patterns of so many pairs are tried; of more, a sample.
EXACT_PAIRS = 12
DRAWS = 10_000


@dataclass(frozen=True)
class Paired:
    """What pairs say of one arm against another."""

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

    Pairs are drawn anew within each group, ``(pairs,)`` each, and groups are kept: layers are
    all there are, and no sample of many (Efron & Tibshirani 1993, chapters 8 and 13).
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(DRAWS)
    for d in groups:
        chosen = generator.integers(0, len(d), (DRAWS, len(d)))
        means += d[chosen].mean(axis=1) / len(groups)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def coverage(pairs: int, trials: int = 400) -> float:
    """Share of samples of normal numbers whose :func:`interval` covers the mean: 0.95 of many."""
    generator = np.random.default_rng(0)
    ends = (interval([generator.normal(size=pairs)], trial) for trial in range(trials))
    return sum(low <= 0 <= high for low, high in ends) / trials


def sign_flip_test(d: Doubles, seed: int = 0) -> float:
    """Share of sign patterns under which the mean is at least as far from zero.

    If two arms are alike, each difference could as well have had the other sign (Fisher 1935).
    Exact up to ``EXACT_PAIRS`` pairs, the smallest p then being 2 / 2ⁿ.
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
