"""float32: what the model computed, bit for bit."""

import numpy as np

from rkstore.store.codecs.base import Encoded, Floats, Shortened


class Float32(Shortened):
    """32 bits a value, no error."""

    name = "float32"
    dtype = np.dtype("<f4")

    def shortened(self, x: Floats) -> np.ndarray:
        return np.ascontiguousarray(x, self.dtype)

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:  # noqa: ARG002
        return np.ascontiguousarray(encoded.values, np.float32)
