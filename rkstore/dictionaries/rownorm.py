"""Normalisation of rows before a dictionary, undone after it, under SAELens' names.

Dictionaries trained by rkstore do not use it; some others do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the names of layouts are known without torch
    from torch import Tensor

# Per row: what to subtract, what to divide by, and what to multiply the decoded code by before the
# first is added again. All (..., 1).
Measured: TypeAlias = "tuple[Tensor, Tensor, Tensor]"


def none(x: Tensor) -> Measured:
    """Rows as they are."""
    return x.new_zeros(1), x.new_ones(1), x.new_ones(1)


def layer_norm(x: Tensor) -> Measured:
    """Mean 0 and variance 1 in each row."""
    std = x.std(dim=-1, keepdim=True)
    return x.mean(dim=-1, keepdim=True), std + 1e-5, std


def constant_norm_rescale(x: Tensor) -> Measured:
    """Norm √d_in in each row; a row of norm 0 stays one."""
    scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return x.new_zeros(1), scale.clamp_min(1e-30), scale


# The layer norm of a Matryoshka transcoder: what it writes gets back what its input lost.
OF_INPUT = "input_unit_norm"

ROW_NORMS: dict[str, Callable[[Tensor], Measured]] = {
    **{norm.__name__: norm for norm in (none, layer_norm, constant_norm_rescale)},
    OF_INPUT: layer_norm,
}
