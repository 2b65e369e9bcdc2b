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

from rkstore.dictionaries.sparse import has_row_kernels
from rkstore.dictionaries.unit import SMALLEST_NORM
from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` in one pass over each parameter; the same numbers.

    An encoder is in memory its transpose (``Dictionary``). torch's fused kernel copies such a
    matrix, its gradient and both moments, and writes three of them back, which takes twice as long
    as the update. It is elementwise, so here it gets their transposes.
    """

    def __init__(self, parameters: Any, lr: float, unit: Sequence[Parameter] = ()) -> None:
        """Start without moments.

        Args:
            unit: decoders whose rows have norm 1. On a CUDA device a step projects their gradients
                and normalises them itself, in the same pass.
        """
        super().__init__(parameters, lr=lr, fused=True)
        self._unit = {id(parameter) for parameter in unit}

    @property
    def keeps_unit(self) -> bool:
        """Whether a step does that to all of them."""
        found = [p for group in self.param_groups for p in group["params"] if id(p) in self._unit]
        return bool(found) and all(map(_in_one_pass, found))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make a step; large matrices on a CUDA device in a pass each."""
        aside = [
            (group, p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and _in_one_pass(p)
        ]
        for _, parameter, _ in aside:
            parameter.grad = None
        super().step(closure)
        corrections = self._begin([(group, p) for group, p, _ in aside])
        for group, parameter, gradient in aside:
            parameter.grad = gradient
            self._in_one_pass(group, parameter, corrections)

    def _begin(self, of: Sequence[tuple[dict[str, Any], Parameter]]) -> Tensor:
        """Count a step of parameters; the corrections of their moments for it."""
        corrections = torch.empty(0)
        for i, (group, p) in enumerate(of):
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] = state["step"].to(p.device) + 1
            if i == 0:
                betas = torch.tensor(group["betas"], dtype=torch.float64)
                left = 1 - betas.to(p.device, non_blocking=True) ** state["step"].double()
                corrections = torch.stack([left[0], left[1].sqrt()]).float()
        return corrections

    def _in_one_pass(self, group: dict[str, Any], p: Parameter, corrections: Tensor) -> None:
        from rkstore.dictionaries import kernels

        state, unit = self.state[p], SMALLEST_NORM if id(p) in self._unit else None
        matrices = [p.detach(), p.grad, state["exp_avg"], state["exp_avg_sq"]]
        # By rows in memory.
        w, g, m, v = (x if p.is_contiguous() else x.T for x in matrices)
        rates = (float(group["lr"]), *group["betas"], group["eps"])
        kernels.adam_(w, g.contiguous(), (m, v), corrections, rates, unit)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> Any:
        """Collect parameters, gradients, moments and steps for the kernel."""
        complex_ones = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        parameters = lists[0]
        turned = [p.dim() == 2 and not p.is_contiguous() for p in parameters]
        for tensors in lists[:-1]:  # the last are the steps
            # The list of maxima is empty: they belong to AMSGrad.
            tensors[:] = [t.T if turn else t for t, turn in zip(tensors, turned, strict=False)]
        return complex_ones


def _in_one_pass(parameter: Tensor) -> bool:
    """Whether there is a kernel for it."""
    if parameter.dim() != 2:
        return False
    return has_row_kernels(parameter if parameter.is_contiguous() else parameter.T)


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
