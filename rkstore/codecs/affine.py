"""Even steps between the least and the greatest value of each dimension."""

import numpy as np

from rkstore.codecs.base import Codec, Encoded, Floats
from rkstore.errors import BadInput

# Rows at a time: few enough that a block stays in the processor's cache.
BLOCK_ROWS = 64


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
        codes = np.empty(x.shape, self.dtype)
        for start in range(0, len(x), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            block = x[rows] - offset
            block /= step
            np.rint(block, out=block)
            # The scale of a span of next to nothing is rounded, and could be too small.
            codes[rows] = np.minimum(block, self.steps, out=block)
        return Encoded(codes, {"offset": offset, "scale": scale})

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        x[...] = encoded.values
        x *= encoded.side["scale"]
        x += encoded.side["offset"]
        return x
