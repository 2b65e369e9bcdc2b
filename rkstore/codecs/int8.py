"""int8: 256 even steps between the least and the greatest value of each dimension."""

import numpy as np

from rkstore.codecs.base import Codec, Encoded, Floats


class Int8(Codec):
    """8 bits a value, affine per dimension: ``value = offset + scale * code``.

    Offset and scale belong to one chunk, so nothing is ever clipped and the error of
    a value is at most half a step, ``scale / 2``, of its own chunk and dimension.
    Affine rather than symmetric because activations after a GELU lie in
    [-0.17, ∞): a symmetric range would waste almost half of its codes.
    """

    name = "int8"
    dtype = np.dtype("u1")
    side = ("offset", "scale")

    def encode(self, x: Floats) -> Encoded:
        offset = x.min(axis=0)
        # Subtracting in float64: the span of two finite float32 values may not be one.
        scale = ((x.max(axis=0).astype(np.float64) - offset) / 255).astype(np.float32)
        # A constant dimension has no step; any divisor gives it code 0.
        step = np.where(scale > 0, scale, np.float32(1))
        codes = np.rint((x - offset) / step).clip(0, 255).astype(self.dtype)
        return Encoded(codes, {"offset": offset, "scale": scale})

    def decode(self, encoded: Encoded) -> Floats:
        x = encoded.values.astype(np.float32)
        x *= encoded.side["scale"]
        x += encoded.side["offset"]
        return x
