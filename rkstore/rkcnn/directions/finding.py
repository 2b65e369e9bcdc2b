"""Directions of subsets, as signed vectors of the whole space."""

import numpy as np
from numpy.typing import NDArray

from rkstore.rkcnn.directions.base import Directions
from rkstore.rkcnn.directions.principal import Principal
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices

# Subsets decomposed at once: their covariance blocks take 12 MB for m = 55.
BLOCK_SUBSETS = 512


def find_directions(
    covariance: Doubles,
    subsets: Indices,
    rows: Floats | None,
    method: Directions,
    components: int = 1,
) -> Floats:
    """The directions of each subset: ``components`` of the first, then of the second.

    The sign of an axis is arbitrary, but a latent fires only on positive values, so it needs the
    side with the rare large values: the sign makes the projection of ``rows`` positively skewed.
    Without rows, or if the projection is not skewed, the entry of largest absolute value is
    positive.

    Args:
        covariance: ``(d, d)``.
        subsets: ``(h, m)`` indices.
        rows: ``(n, d)``, a sample of the activations.

    Returns:
        ``(h · components, d)`` float32, each of norm 1 and zero outside its subset.

    Raises:
        BadInput: a subset does not vary, or varies in fewer directions.
    """
    count = components
    directions = np.zeros((len(subsets) * count, len(covariance)), np.float32)
    for start in range(0, len(subsets), BLOCK_SUBSETS):
        chosen = subsets[start : start + BLOCK_SUBSETS]
        axes = method.axes(covariance, chosen, rows, components).reshape(-1, chosen.shape[1])
        axes = _largest_entry_positive(axes).astype(np.float32)
        into = directions[start * count : (start + BLOCK_SUBSETS) * count]
        np.put_along_axis(into, chosen.repeat(count, axis=0), axes, axis=1)
        if rows is not None:
            into[_skewness_sign(rows @ into.T) < 0] *= -1
    return directions


def principal_directions(
    covariance: Doubles, subsets: Indices, rows: Floats | None = None
) -> Floats:
    """The direction of largest variance inside each subset: :func:`find_directions` of one.

    Returns:
        ``(r, d)`` float32, each row of norm 1 and zero outside its subset.

    Raises:
        BadInput: every dimension of a subset is constant; names them.
    """
    return find_directions(covariance, subsets, rows, Principal())


def _largest_entry_positive(vectors: Doubles) -> Doubles:
    """The vectors ``(b, m)``, negated where their entry of largest absolute value is negative."""
    largest = np.abs(vectors).argmax(axis=1, keepdims=True)
    negative = np.take_along_axis(vectors, largest, axis=1) < 0
    return np.where(negative, -vectors, vectors)


def _skewness_sign(projections: Floats) -> NDArray[np.float64]:
    """Sign of the skewness of each column of ``(n, b)``, ``(b,)``."""
    deviation = projections - projections.mean(axis=0, dtype=np.float64)
    skewness: NDArray[np.float64] = (deviation**2 * deviation).sum(axis=0)
    return np.sign(skewness)
