"""The interface of codecs: :class:`Codec`, and :class:`Encoded` rows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rkstore.store.apart import Apart

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Encoded rows.

    ``values``, shape ``(rows, d_in)``, has the codec's dtype. ``side`` holds the parameters for
    decoding, one float32 vector of length ``d_in`` for each name in the codec's ``side``.
    ``apart`` has the values that cannot be encoded, if any.
    """

    values: np.ndarray
    side: dict[str, Floats] = field(default_factory=dict)
    apart: Apart | None = None

    def part(self, first: int, stop: int) -> "Encoded":
        """Rows ``first`` to ``stop``."""
        apart = self.apart.part(first, stop) if self.apart else None
        return Encoded(self.values[first:stop], self.side, apart)


class Codec(ABC):
    """Turns float32 activations ``(rows, d_in)`` into stored numbers and back.

    First its parameters are fitted to a shard (:meth:`fit`), then it works on one chunk at a time,
    so a chunk decodes without its neighbours.
    """

    name: str
    dtype: np.dtype
    side: tuple[str, ...] = ()
    side_of: Literal["shard", "chunk"] = "shard"
    """Whether each shard or each chunk has its own vectors in ``side``."""
    keeps_apart: bool = False
    """Whether values that cannot be encoded are kept apart."""

    def fit(self, x: Floats) -> dict[str, Floats]:  # noqa: ARG002 - not every codec learns
        """Fit the parameters of a shard to its first rows, ``(n, d_in)``, none massive.

        Returns:
            The vectors of ``side``.

        Raises:
            BadInput: the codec cannot hold values of that size.
        """
        return {}

    @abstractmethod
    def encode(
        self, x: Floats, side: dict[str, Floats], massive: NDArray[np.bool_] | None = None
    ) -> Encoded:
        """Encode finite values ``(rows, d_in)``.

        Args:
            side: what :meth:`fit` returned.
            massive: which rows are massive, ``(rows,)``; none by default.

        Raises:
            BadInput: the codec cannot hold a value of that size.
        """

    @abstractmethod
    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        """Return float32 values ``(rows, d_in)``, contiguous.

        Args:
            out: memory that may be used for them, of their shape. Values that are already float32
            are returned unchanged, and ``out`` is not used.
        """


class Shortened(Codec):
    """Each value as a float: no parameters, and nothing is kept apart."""

    def encode(
        self,
        x: Floats,
        side: dict[str, Floats],  # noqa: ARG002
        massive: NDArray[np.bool_] | None = None,  # noqa: ARG002
    ) -> Encoded:
        return Encoded(self.shortened(x))

    @abstractmethod
    def shortened(self, x: Floats) -> np.ndarray:
        """The values ``(rows, d_in)`` in the codec's dtype.

        Raises:
            BadInput: one is too large for it.
        """
