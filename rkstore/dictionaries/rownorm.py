"""What is done to each row before a dictionary sees it, and undone behind it: SAELens' names.

A dictionary that rkstore trains asks for nothing of the kind; some that others trained do.
"""

from collections.abc import Callable

from torch import Tensor

# Row by row: what to subtract, what to divide the rest by, and what the code's own decoding is
# multiplied by before the first is added again. All (..., 1).
Measured = tuple[Tensor, Tensor, Tensor]


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


ROW_NORMS: dict[str, Callable[[Tensor], Measured]] = {
    norm.__name__: norm for norm in (none, layer_norm, constant_norm_rescale)
}
