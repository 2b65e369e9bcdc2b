"""Even steps between the least and the greatest value of each dimension."""

import numpy as np

from rkstore.codecs.base import Codec, Encoded, Floats
from rkstore.errors import BadInput


class Affine(Codec):
    """Integers with ``value = offset + scale * code``, code 0 to ``steps``.

    Offset and scale belong to one dimension of one chunk, so nothing is ever clipped
    and the error of a value is at most half a step, ``scale / 2``. Affine rather than
    symmetric because activations after a GELU lie in [-0.17, ∞): a symmetric range
    would waste almost half of its codes.
    """

    dtype = np.dtype("u1")
    side = ("offset", "scale")
    steps: int

    def encode(self, x: Floats) -> Encoded:
        offset = x.min(axis=0)
        with np.errstate(over="ignore"):
            span = x.max(axis=0) - offset
        if not np.isfinite(span).all():
            raise BadInput(
                f"{self.name} cannot hold values that lie 3.4e38 apart: use --codec float32"
            )
        scale = span / np.float32(self.steps)
        # A constant dimension has no step; any divisor gives it code 0.
        step = np.where(scale > 0, scale, np.float32(1))
        codes = np.rint((x - offset) / step).clip(0, self.steps).astype(self.dtype)
        return Encoded(codes, {"offset": offset, "scale": scale})

    def decode(self, encoded: Encoded) -> Floats:
        x = encoded.values.astype(np.float32)
        x *= encoded.side["scale"]
        x += encoded.side["offset"]
        return x
