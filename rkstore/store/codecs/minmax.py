"""int8 and int6 in stores of schema 1: uniform steps from minimum to maximum. Read only."""

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.codecs.base import Encoded, Floats, Stepped


class MinMax(Stepped):
    """Integers with ``value = offset + scale · code``, fitted per dimension and chunk.

    The step followed the extremes: a few massive rows took the precision of all others.
    """

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
