"""Adam, as fast for a matrix that lies in memory transposed."""

from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` in one pass over each parameter; the same numbers.

    An encoder is in memory its transpose (``Dictionary``). torch's fused kernel copies such a
    matrix, its gradient and both moments, and writes three of them back, which takes twice as long
    as the update. It is elementwise, so here it gets their transposes.
    """

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr, fused=True)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> Any:
        """Collect parameters, gradients, moments and steps for the kernel."""
        complex_ones = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        parameters = lists[0]
        turned = [p.dim() == 2 and not p.is_contiguous() for p in parameters]
        for tensors in lists[:-1]:  # the last are the steps
            # The list of maxima is empty: they belong to AMSGrad.
            tensors[:] = [t.T if turn else t for t, turn in zip(tensors, turned, strict=False)]
        return complex_ones
