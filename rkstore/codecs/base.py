"""What every codec does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """One chunk as it is stored.

    ``values``, shape ``(rows, d_in)``, has the codec's dtype. ``side`` holds what
    decoding needs besides, one float32 vector of length ``d_in`` for each name in
    the codec's ``side``.
    """

    values: np.ndarray
    side: dict[str, Floats] = field(default_factory=dict)


class Codec(ABC):
    """Turns float32 activations ``(rows, d_in)`` into stored numbers and back.

    A codec works on one chunk at a time, so a chunk decodes without its neighbours.
    """

    name: str
    dtype: np.dtype
    side: tuple[str, ...] = ()

    @abstractmethod
    def encode(self, x: Floats) -> Encoded:
        """Encode finite values ``(rows, d_in)``.

        Raises:
            BadInput: the codec cannot hold a value of that size.
        """

    @abstractmethod
    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        """Return float32 values ``(rows, d_in)``, contiguous.

        Args:
            out: memory that may be used for them, of their shape. Where values are float32
                already, they are returned as they lie, and ``out`` is left as it was.
        """
