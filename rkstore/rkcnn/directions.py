"""The principal direction of each subset of dimensions, with a sign that means something."""

import numpy as np
import torch
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices

# Subsets decomposed at once: their covariance blocks take 12 MB for m = 55.
BLOCK_SUBSETS = 512


def principal_directions(
    covariance: Doubles, subsets: Indices, rows: Floats | None = None
) -> Floats:
    """The direction of largest variance inside each subset, as vectors of the whole space.

    It is the first right singular vector of the centred activations of the subset,
    found as the last eigenvector of their block of the covariance. Such a vector has
    no sign of its own, but a latent that fires on positive values only needs the side
    on which the rare large values lie: the one that makes the projection of ``rows``
    positively skewed. Without rows, or where the projection is not skewed, the entry
    of largest absolute value is positive.

    Args:
        covariance: ``(d, d)``.
        subsets: ``(r, m)``.
        rows: ``(n, d)``, a sample of the activations.

    Returns:
        ``(r, d)`` float32, each row of norm 1 and zero outside its subset.

    Raises:
        BadInput: every dimension of a subset is constant; names them.
    """
    directions = np.zeros((len(subsets), len(covariance)), np.float32)
    for start in range(0, len(subsets), BLOCK_SUBSETS):
        chosen = subsets[start : start + BLOCK_SUBSETS]
        blocks = covariance[chosen[:, :, None], chosen[:, None, :]]
        _check_variance(blocks, chosen)
        axes = _largest_entry_positive(_last_eigenvectors(blocks))
        into = directions[start : start + BLOCK_SUBSETS]
        np.put_along_axis(into, chosen, axes.astype(np.float32), axis=1)
        if rows is not None:
            into[_skewness_sign(rows @ into.T) < 0] *= -1
    return directions


def _check_variance(blocks: Doubles, subsets: Indices) -> None:
    """Blocks ``(b, m, m)`` must not be all zero."""
    constant = ~blocks.any(axis=(1, 2))
    if constant.any():
        named = ", ".join(str(i) for i in subsets[constant.argmax()])
        raise BadInput(
            f"dimensions {named} are all constant, so this subset has no principal direction: "
            "keep fewer subsets, or probe rows in which they vary"
        )


def _last_eigenvectors(blocks: Doubles) -> Doubles:
    """Unit eigenvectors ``(b, m)`` of the largest eigenvalues of ``(b, m, m)``.

    On one thread: such small matrices gain nothing from several, which on a busy
    machine wait for each other, measured up to 27 times longer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        vectors: Doubles = torch.linalg.eigh(torch.from_numpy(blocks))[1][:, :, -1].numpy()
    finally:
        torch.set_num_threads(threads)
    return vectors


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
