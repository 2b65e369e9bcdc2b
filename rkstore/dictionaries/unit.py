"""Decoder rows of norm 1: to normalise them, and to keep a gradient from changing their norm."""

import torch
from torch import Tensor

from rkstore.dictionaries.sparse import has_row_kernels

# Of a row, so that one of zeros stays one.
SMALLEST_NORM = 1e-12


def normalise_(weights: Tensor) -> None:
    """Give the rows ``(n, d)`` norm 1."""
    if has_row_kernels(weights):
        from rkstore.dictionaries import kernels

        kernels.normalise_(weights, SMALLEST_NORM)
    else:
        weights.div_(weights.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM))


def project_(gradient: Tensor, weights: Tensor) -> None:
    """Remove from every row of a gradient the part along that of the weights, both ``(n, d)``.

    Bricken et al. (2023), "Towards Monosemanticity", appendix on training.
    """
    if has_row_kernels(weights) and gradient.is_contiguous():
        from rkstore.dictionaries import kernels

        kernels.project_(gradient, weights)
    else:
        along = torch.linalg.vecdot(gradient, weights)
        gradient.addcmul_(weights, along.unsqueeze(1), value=-1)
