"""float16: eleven significant bits, up to 65,504."""

import numpy as np
from numpy.typing import NDArray

from rkstore.codecs.base import Codec, Encoded, Floats
from rkstore.errors import BadInput


class Float16(Codec):
    """16 bits a value; relative error at most 2⁻¹¹ down to 6e-5."""

    name = "float16"
    dtype = np.dtype("<f2")

    def encode(
        self,
        x: Floats,
        side: dict[str, Floats],  # noqa: ARG002
        massive: NDArray[np.bool_] | None = None,  # noqa: ARG002
    ) -> Encoded:
        largest = float(np.abs(x).max(initial=0.0))
        # 65,520 is where rounding to nearest reaches infinity.
        if largest >= 65520:
            raise BadInput(
                f"float16 cannot hold {largest:.6g} (its largest value is 65504): "
                "use --codec bfloat16 or float32"
            )
        return Encoded(x.astype(self.dtype))

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        x[...] = encoded.values
        return x
