"""A select and its losses differentiated automatically, between products that are not.

For selects without a derivative of their own here: what they do to a code is elementwise, and only
what surrounds it is large products.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.losses import select_losses
from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.selects.gated import Gated
from rkstore.dictionaries.selects.jumprelu import JumpReLU
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.sparse import has_kernels
from rkstore.training.fast.scratch import grad_of

# Selects whose compiled derivatives tests on a device hold to those of the CPU.
COMPILED = (ReLU, JumpReLU, Gated)

# Entries of a code: to compile takes seconds, and a smaller one is not worth them.
COMPILED_FROM = 2**22


def _code(
    dictionary: Dictionary,
    rows: Rows,
    blocks: Sequence[Tensor],
    dead: Tensor,
    pressure: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The code of pre-activations, and the losses of the select, in float32 but for products.

    Args:
        pressure: a number, or one in a tensor: another number would be compiled anew.
    """
    dtype, device = blocks[0].dtype, blocks[0].device.type
    pre = (blocks[0] if len(blocks) == 1 else torch.cat(list(blocks), dim=1)).float()
    f = dictionary.code(pre)
    with torch.autocast(device, dtype, device == "cuda" and dtype != torch.float32):
        losses = select_losses(dictionary, rows, pre, f, dead, pressure)
    return f.to(dtype), losses


@cache
def _compiled() -> Callable[..., Any]:
    """The same compiled, which makes a few passes of some dozens."""
    return torch.compile(_code)


class Graph:
    """From pre-activations to a code ``f (batch, d_sae)``, in their dtype, and to the losses of
    the select."""

    def __init__(
        self,
        dictionary: Dictionary,
        rows: Rows,
        blocks: Sequence[Tensor],
        dead: Tensor,
        pressure: float,
    ) -> None:
        self._parameters = [p for p in dictionary.parameters() if p.requires_grad]
        with torch.enable_grad():
            self._pre = [block.detach().requires_grad_() for block in blocks]
            # What is asked of other processes is never compiled.
            alone = dictionary.pools[0].world.size == 1
            large = alone and sum(map(Tensor.numel, blocks)) >= COMPILED_FROM
            if large and has_kernels(blocks[0]) and type(dictionary.pools[0].rule) in COMPILED:
                weight = blocks[0].new_full((), pressure, dtype=torch.float32)
                self.f, losses = _compiled()(dictionary, rows, self._pre, dead, weight)
            else:
                self.f, losses = _code(dictionary, rows, self._pre, dead, pressure)
            self._losses = [loss for loss in losses.values() if loss.requires_grad]
        self.losses = {name: loss.detach() for name, loss in losses.items()}

    def back(self, by_code: Tensor) -> Tensor:
        """The derivative by the pre-activations from that by the code, both ``(batch, d_sae)``.

        Also keeps the derivatives by parameters, for :meth:`add`.
        """
        ones = [torch.ones_like(loss) for loss in self._losses]
        found = torch.autograd.grad(
            [self.f, *self._losses],
            [*self._pre, *self._parameters],
            [by_code.to(self.f.dtype), *ones],
            allow_unused=True,
        )
        count = len(self._pre)
        self._found = found[count:]
        pre = [x for x in found[:count] if x is not None]
        return pre[0] if count == 1 else torch.cat(pre, dim=1)

    def add(self) -> None:
        """Add the derivatives by parameters to their ``grad``."""
        for parameter, gradient in zip(self._parameters, self._found, strict=True):
            if gradient is not None:
                grad_of(parameter).add_(gradient)
