"""Directions compared with known features, and with chance."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.source import Source, StoreSite, open_source, read_blocks
from rkstore.rkcnn.subsets import Indices

Array = ArrayLike | torch.Tensor

# A standard deviation below this fraction of a value may be rounding.
ROUNDING = 1e-13


class FeatureCorrelations(NamedTuple):
    """Correlations of projections on directions with features, over rows."""

    matrix: Doubles
    """``(r, f)`` Pearson correlations; NaN for a projection or a feature that is constant."""
    best_feature: Indices
    """``(r,)``: for each direction the feature of the largest |correlation|; -1 for none."""
    best_direction: Indices
    """``(f,)``: for each feature the direction of the largest |correlation|; -1 for none."""


def feature_correlations(
    directions: Array, activations: torch.Tensor | np.ndarray | StoreSite, features: Array
) -> FeatureCorrelations:
    """Pearson correlation of every projection with every feature, in one pass over the rows.

    Args:
        directions: ``(r, d)``.
        activations: ``(n, d)``, or a site of a store; read in blocks.
        features: ``(n, f)``: the activity of each known feature in each row.

    Raises:
        BadInput: shapes that do not fit, fewer than two rows, or values that are not finite.
    """
    axes, known = _matrix(directions, "directions"), _matrix(features, "features")
    source = open_source(activations)
    if axes.shape[1] != source.width:
        raise BadInput(
            f"the directions are {axes.shape[1]} wide and the activations {source.width}: "
            "give directions of the same site"
        )
    if len(known) != source.rows:
        raise BadInput(
            f"the features have {len(known)} rows and the activations {source.rows}: "
            "give one row of features for each"
        )
    if source.rows < 2:
        raise BadInput("a correlation needs at least 2 rows")
    matrix = _correlation(_pairs(source, axes, known), len(axes), known.shape[1])
    return FeatureCorrelations(matrix, _best(matrix), _best(matrix.T))


def _pairs(source: Source, axes: Doubles, known: Doubles) -> Iterator[tuple[Doubles, Doubles]]:
    """Blocks of projections ``(b, r)`` and of features ``(b, f)`` of the same rows."""
    start = 0
    for block in read_blocks(source):
        yield block @ axes.T, known[start : start + len(block)]
        start += len(block)


def _correlation(pairs: Iterator[tuple[Doubles, Doubles]], r: int, f: int) -> Doubles:
    """Correlations ``(r, f)`` of the columns of two sets of blocks.

    Sums are over differences from the first row, so that an offset costs no precision. A variance
    that could be rounding of that row counts as zero.
    """
    rows, sums = 0, (np.zeros(r), np.zeros(f))
    squares, products = (np.zeros(r), np.zeros(f)), np.zeros((r, f))
    first: tuple[Doubles, Doubles] | None = None
    for pair in pairs:
        first = first or (pair[0][0].copy(), pair[1][0].copy())
        left, right = (block - origin for block, origin in zip(pair, first, strict=True))
        rows += len(left)
        for i, block in enumerate((left, right)):
            sums[i][:] += block.sum(axis=0)
            squares[i][:] += np.einsum("nd,nd->d", block, block)
        products += left.T @ right
    assert first is not None  # there are rows
    deviations = []
    for i, origin in enumerate(first):
        variance = squares[i] - sums[i] ** 2 / rows
        real = variance > rows * (ROUNDING * origin) ** 2
        deviations.append(np.sqrt(np.where(real, variance, 0.0)))
    scale = np.outer(*deviations)
    covariance = products - np.outer(*sums) / rows
    undefined = np.full((r, f), np.nan)
    correlation: Doubles = np.divide(covariance, scale, out=undefined, where=scale > 0)
    return correlation


def _best(matrix: Doubles) -> Indices:
    """Column ``(r,)`` of the largest absolute value of each row; -1 if all are NaN."""
    size = np.nan_to_num(np.abs(matrix), nan=-1.0)
    return np.where(size.max(axis=1) >= 0, size.argmax(axis=1), -1)


@dataclass(frozen=True)
class Recovery:
    """How well a set of directions recovers known feature directions.

    Everything uses |cosines|: a direction and its opposite are the same.
    """

    cosines: Doubles
    """``(r, f)``, with their signs."""
    mmcs: float
    """Mean over features of the largest |cosine| with any direction (Sharkey, Braun & Millidge
    2022, "Taking features out of superposition with sparse autoencoders": mean max cosine
    similarity)."""
    found: float
    """Fraction of features with any direction at the threshold or above, as in the RkCNN-SAE code:
    a single direction may find several features.
    """
    matched: float
    """The same if each direction finds one feature: in the matching with the largest sum of
    |cosines| (Kuhn 1955, "The Hungarian method for the assignment problem").
    """
    match: Indices
    """``(f,)``: the direction matched to each feature; -1 if there are fewer directions."""
    chance: "Chance"


@dataclass(frozen=True)
class Chance:
    """The same numbers for random directions with the supports of the real ones."""

    mmcs: Doubles
    """``(draws,)``."""
    found: Doubles
    """``(draws,)``."""
    matched: Doubles
    """``(draws,)``."""

    def p_value(self, recovery: Recovery, name: str) -> float:
        """Fraction of draws, including the real one, that are at least as good in ``name``."""
        drawn, real = getattr(self, name), getattr(recovery, name)
        return float((1 + (drawn >= real).sum()) / (1 + len(drawn)))


def feature_recovery(
    directions: Array, features: Array, threshold: float = 0.7, draws: int = 200, seed: int = 0
) -> Recovery:
    """Compare directions with the known directions of features, and with chance.

    A random direction has normal entries where the real direction is not zero: sparse directions
    are close to sparse features even by chance.

    Args:
        directions: ``(r, d)``, of any norm above zero.
        features: ``(f, d)``: for a toy model the row of its weights that writes each feature.
        threshold: |cosine| from which a feature counts as found.
        draws: sets of random directions.

    Raises:
        BadInput: shapes that do not fit, values that are not finite, a direction of norm zero,
            a threshold outside 0 to 1 or no draw.
    """
    axes, known = _matrix(directions, "directions"), _matrix(features, "features")
    if axes.shape[1] != known.shape[1]:
        raise BadInput(
            f"the directions are {axes.shape[1]} wide and the features {known.shape[1]}: "
            "give both in the same space"
        )
    if not 0 < threshold <= 1:
        raise BadInput(f"threshold is {threshold}: it must be above 0 and at most 1")
    if draws < 1:
        raise BadInput(f"draws is {draws}: it must be at least 1")
    known = _unit(known, "features")
    cosines = _unit(axes, "directions") @ known.T
    generator = np.random.default_rng(seed)
    random = [_random(axes, generator) @ known.T for _ in range(draws)]
    chance = Chance(*np.array([_numbers(found, threshold) for found in random]).T)
    return Recovery(cosines, *_numbers(cosines, threshold), _match(cosines), chance)


def _numbers(cosines: Doubles, threshold: float) -> tuple[float, float, float]:
    """mmcs, found and matched of cosines ``(r, f)``."""
    sizes, match = np.abs(cosines), _match(cosines)
    largest = sizes.max(axis=0)
    matched = np.where(match >= 0, sizes[match, np.arange(len(match))], 0.0)
    return (
        float(largest.mean()),
        float((largest >= threshold).mean()),
        float((matched >= threshold).mean()),
    )


def _match(cosines: Doubles) -> Indices:
    rows, columns = linear_sum_assignment(np.abs(cosines), maximize=True)
    match = np.full(cosines.shape[1], -1)
    match[columns] = rows
    return match


def _random(axes: Doubles, generator: np.random.Generator) -> Doubles:
    """Random unit vectors with the supports of axes ``(r, d)``, uniform inside them."""
    return _unit(np.where(axes != 0, generator.standard_normal(axes.shape), 0.0), "")


def _unit(vectors: Doubles, name: str) -> Doubles:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms == 0).any():
        raise BadInput(f"row {int(norms.argmin())} of the {name} is zero: leave it out")
    unit: Doubles = vectors / norms
    return unit


def _matrix(array: Array, name: str) -> NDArray[np.float64]:
    """A matrix of finite numbers with at least one row and column, as float64."""
    array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise BadInput(
            f"{name} have shape {array.shape} and type {array.dtype}: give a matrix of numbers"
        )
    if not np.isfinite(array).all():
        raise BadInput(f"{name} have a value that is not finite: leave its row out")
    return array.astype(np.float64)
