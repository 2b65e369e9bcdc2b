"""float16: eleven significant bits, up to 65,504."""

import numpy as np

from rkstore.errors import BadInput
from rkstore.store.codecs.base import Encoded, Floats, Shortened


class Float16(Shortened):
    """16 bits a value; relative error at most 2⁻¹¹ down to 6e-5."""

    name = "float16"
    dtype = np.dtype("<f2")

    def shortened(self, x: Floats) -> np.ndarray:
        largest = float(np.abs(x).max(initial=0.0))
        # 65,520 is where rounding to nearest reaches infinity.
        if largest >= 65520:
            raise BadInput(
                f"float16 cannot hold {largest:.6g} (its largest value is 65504): "
                "use --codec bfloat16 or float32"
            )
        return x.astype(self.dtype)

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        x[...] = encoded.values
        return x
