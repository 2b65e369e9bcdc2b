"""The interface of directions."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices
from rkstore.settings import Settings


class Directions(Settings, ABC):
    """Finds the directions inside subsets of the columns. Its fields are its options."""

    name: ClassVar[str]

    @abstractmethod
    def axes(
        self, covariance: Doubles, subsets: Indices, rows: Floats | None, components: int = 1
    ) -> Doubles:
        """Unit vectors ``(h, components, m)`` in the coordinates of subsets ``(h, m)``.

        Args:
            covariance: ``(d, d)``.
            rows: ``(n, d)``, centred, a sample of them.
            components: directions of a subset, in order.

        Raises:
            BadInput: a subset varies in fewer directions; or rows are needed but not given.
        """


def blocks_of(covariance: Doubles, subsets: Indices) -> Doubles:
    """Covariances ``(h, m, m)`` within subsets ``(h, m)``, none of them all zero."""
    blocks = covariance[subsets[:, :, None], subsets[:, None, :]]
    constant = ~blocks.any(axis=(1, 2))
    if constant.any():
        named = ", ".join(str(i) for i in subsets[constant.argmax()])
        raise BadInput(
            f"dimensions {named} are all constant, so this subset has no principal direction: "
            "keep fewer subsets, or probe rows in which they vary"
        )
    return blocks


def check_rank(values: Doubles, subsets: Indices, components: int) -> None:
    """Raise BadInput unless ascending eigenvalues ``(h, m)`` have that many above zero."""
    ranks = (values > 1e-6 * values[:, -1:]).sum(axis=1)
    if ranks.min() < components:
        named = ", ".join(str(i) for i in subsets[ranks.argmin()])
        raise BadInput(
            f"dimensions {named} vary in only {ranks.min()} directions and components is "
            f"{components}: lower it, or probe rows in which they vary more"
        )


def eigenvectors(blocks: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues ``(h, m)``, ascending, and unit eigenvectors ``(h, m, m)`` in columns.

    On one thread: such small matrices gain nothing from several, which on a busy machine wait for
    each other and took up to 27 times longer.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(torch.from_numpy(blocks))
    finally:
        torch.set_num_threads(threads)
    return values.numpy(), vectors.numpy()


def unit(vectors: Doubles) -> Doubles:
    """Vectors ``(..., m)`` divided by their norm."""
    lengths: Doubles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths
