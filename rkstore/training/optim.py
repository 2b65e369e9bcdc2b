"""Adam, as fast for a matrix that lies in memory transposed, and clipping of its gradients.

A step with ``--unit-decoder`` is that of dictionary_learning's ConstrainedAdam: the gradient of a
decoder row loses its part along the row, Adam makes a step (its momentum is not projected), and the
row gets norm 1. These are in ``Dictionary``; ``step.py`` has the order. The alternative is
``--no-unit-decoder`` with a ``--code-norm``, where the norms of the decoder weigh the code in the
penalty and rows are free.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput


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


def clip(
    trained: Sequence[tuple[str, Parameter]], most: float | None, across: World = ALONE
) -> Tensor | None:
    """Scale all gradients together so that their norm is at most that; the norm before, a scalar.

    Before the decoder's gradient is projected, as in dictionary_learning; that only makes it
    shorter. None if ``most`` is.

    Args:
        across: the processes that the latents are spread over.
    """
    if most is None:
        return None
    parameters = [parameter for _, parameter in trained]
    if across.size == 1:
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    squares = {name: _square(parameter) for name, parameter in trained}
    shared = squares.pop("b_dec")  # every process has it
    norm = (across.sum(torch.stack(list(squares.values())).sum()) + shared).sqrt()
    torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _square(parameter: Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.square().sum()


def check_clip(most: float | None) -> None:
    """Raise BadInput unless something would be left of a clipped gradient."""
    if most is not None and not most > 0:
        raise BadInput(
            f"--clip is {most:g}: it must be above 0, or nothing is learned; for no clipping leave "
            "it out"
        )
