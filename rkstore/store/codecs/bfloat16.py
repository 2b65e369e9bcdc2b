"""bfloat16: the upper half of a float32, for models that compute in it anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rkstore.store.codecs.base import Encoded, Floats, Shortened

if TYPE_CHECKING:
    from torch import Tensor


class BFloat16(Shortened):
    """16 bits a value, float32's range; relative error at most 2⁻⁸.

    NumPy and HDF5 lack this type, so the 16 bits are stored as uint16.
    """

    name = "bfloat16"
    dtype = np.dtype("<u2")

    def shortened(self, x: Floats) -> np.ndarray:
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        # Round to nearest, ties to even, as hardware does. A finite value that would round up to
        # infinity becomes the largest finite one.
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        overflow = (rounded & 0x7FFF) >= 0x7F80
        return (rounded - overflow).astype(self.dtype)

    def decode(self, encoded: Encoded, out: Floats | None = None) -> Floats:
        x = np.empty(encoded.values.shape, np.float32) if out is None else out
        np.left_shift(encoded.values, 16, out=x.view(np.uint32), dtype=np.uint32)
        return x

    def decode_tensor(self, values: Tensor, side: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        import torch

        return values.view(torch.bfloat16).float()
