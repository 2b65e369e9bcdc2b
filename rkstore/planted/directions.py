"""Random unit directions, with a stated overlap if one is asked for.

The overlap of directions is the mean over them of the largest |cosine| with another, ρ_mm in
SynthSAEBench (arXiv 2602.14687).
"""

import numpy as np

from rkstore.errors import BadInput
from rkstore.planted.forest import Doubles

# Directions at a time whose cosines with all others are in memory.
BLOCK = 1024

# Steps in which directions are spread, and how much of the pull of the others one step takes.
STEPS, RATE = 300, 0.1

# Halvings until an overlap is met: to about 1e-6.
HALVINGS = 20


def draw_directions(
    features: int, width: int, overlap: float | None, generator: np.random.Generator
) -> Doubles:
    """Unit directions ``(features, width)``.

    Args:
        overlap: the overlap that they shall have; None for that of random directions.

    Raises:
        BadInput: so many directions cannot overlap so little, or there is only one.
    """
    drawn = _unit(generator.standard_normal((features, width)))
    if overlap is None:
        return drawn
    if features == 1:
        raise BadInput("a single feature overlaps with no other: leave out --overlap")
    if overlap_of(drawn) < overlap:
        partner = np.minimum(np.arange(features) ^ 1, features - 1)
        partner[-1] = features - 2 if features % 2 else partner[-1]
        return _between(overlap, drawn, drawn + drawn[partner])
    for _ in range(STEPS):
        spread = _spread(drawn)
        if overlap_of(spread) <= overlap:
            return _between(overlap, spread, drawn)
        drawn = spread
    raise BadInput(
        f"--overlap is {overlap}: {features} directions in {width} dimensions overlap by "
        f"{overlap_of(drawn):.3f} or more: ask for more than that, or give a larger --d-in"
    )


def overlap_of(directions: Doubles) -> float:
    """Mean over unit directions ``(n, d)`` of the largest |cosine| with another."""
    largest = np.empty(len(directions))
    for start in range(0, len(directions), BLOCK):
        cosines = np.abs(directions[start : start + BLOCK] @ directions.T)
        np.fill_diagonal(cosines[:, start:], 0.0)
        largest[start : start + BLOCK] = cosines.max(axis=1)
    return float(largest.mean())


def _between(overlap: float, few: Doubles, many: Doubles) -> Doubles:
    """Directions of that overlap, on the way from directions with less of it to some with more."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = overlap_of(_unit(few + middle * (many - few))) >= overlap
        low, high = (low, middle) if enough else (middle, high)
    return _unit(few + high * (many - few))


def _spread(directions: Doubles) -> Doubles:
    """A step down the sum of the fourth powers of the cosines, which the largest dominate."""
    pull = np.empty_like(directions)
    for start in range(0, len(directions), BLOCK):
        cosines = directions[start : start + BLOCK] @ directions.T
        np.fill_diagonal(cosines[:, start:], 0.0)
        pull[start : start + BLOCK] = cosines**3 @ directions
    size = np.linalg.norm(pull, axis=1).max()
    return _unit(directions - RATE * pull / size) if size else directions


def _unit(vectors: Doubles) -> Doubles:
    unit: Doubles = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
