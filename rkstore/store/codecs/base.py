"""The interface of codecs: :class:`Codec`, and :class:`Encoded` rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rkstore.store.apart import Apart

if TYPE_CHECKING:  # reading a store must not import torch
    from torch import Tensor

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

    def part(self, first: int, stop: int) -> Encoded:
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

    encodes_tensors: bool = False
    """Whether it has :meth:`encode_tensor`."""

    def encode_tensor(
        self, x: Tensor, side: Mapping[str, Tensor], massive: Tensor
    ) -> tuple[Tensor, Tensor]:
        """:meth:`encode` on the device of ``x``, bit for bit.

        Returns:
            The codes ``(rows, d_in)``, and which values of the rows that are not massive have none.
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        """Return float32 values ``(rows, d_in)``, contiguous.

        Args:
            out: memory that may be used for them, of their shape. Values that are already float32
            are returned unchanged, and ``out`` is not used.
        """

    @abstractmethod
    def decode_tensor(self, values: Tensor, side: Mapping[str, Tensor]) -> Tensor:
        """The same on the device of ``values (rows, d_in)``, bit for bit, as float32 tensors.

        Args:
            side: the parameters of each row, ``(rows, d_in)``, or of all, ``(1, d_in)``.
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

    def decode_tensor(self, values: Tensor, side: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        return values.float()


class Stepped(Codec):
    """Integers with ``value = offset + scale · code``."""

    dtype = np.dtype("u1")
    side = ("offset", "scale")

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        x[...] = encoded.values
        x *= encoded.side["scale"]
        x += encoded.side["offset"]
        if encoded.apart is not None:
            encoded.apart.put(x)
        return x

    def decode_tensor(self, values: Tensor, side: Mapping[str, Tensor]) -> Tensor:
        # Two operations, which round as those above: a fused one would round once.
        return values.float().mul_(side["scale"]).add_(side["offset"])
