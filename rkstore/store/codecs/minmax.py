"""int8 and int6 in stores of schema 1: uniform steps from minimum to maximum. Read only."""

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.codecs.base import Codec, Encoded, Floats


class MinMax(Codec):
    """Integers with ``value = offset + scale · code``, fitted per dimension and chunk.

    The step followed the extremes: a few massive rows took the precision of all others.
    """

    dtype = np.dtype("u1")
    side = ("offset", "scale")
    side_of = "chunk"

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(
        self,
        x: Floats,  # noqa: ARG002
        side: dict[str, Floats],  # noqa: ARG002
        massive: NDArray[np.bool_] | None = None,  # noqa: ARG002
    ) -> Encoded:
        raise BadInput(f"{self.name} of schema 1 can be read, not written: harvest to a new store")

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        x[...] = encoded.values
        x *= encoded.side["scale"]
        x += encoded.side["offset"]
        return x
