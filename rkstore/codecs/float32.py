"""float32: what the model computed, bit for bit."""

import numpy as np
from numpy.typing import NDArray

from rkstore.codecs.base import Codec, Encoded, Floats


class Float32(Codec):
    """32 bits a value, no error."""

    name = "float32"
    dtype = np.dtype("<f4")

    def encode(
        self,
        x: Floats,
        side: dict[str, Floats],  # noqa: ARG002
        massive: NDArray[np.bool_] | None = None,  # noqa: ARG002
    ) -> Encoded:
        return Encoded(np.ascontiguousarray(x, self.dtype))

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:  # noqa: ARG002
        return np.ascontiguousarray(encoded.values, np.float32)
