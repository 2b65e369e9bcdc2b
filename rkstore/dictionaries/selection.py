"""A select applied to the latents of a dictionary, with its state between batches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rkstore.dictionaries.selects import Select
from rkstore.dictionaries.sparse import SparseCode
from rkstore.dictionaries.world import ALONE, World


class Selection(nn.Module):
    """One pool of latents and the select that ranks them.

    The state, such as a threshold, is in buffers, what is learned in parameters: both are saved
    with the weights. ``world`` are the processes that the rows of a batch are spread over,
    and ``across`` those that the latents are: at most one of them is more than this process.
    """

    def __init__(self, select: Select, latents: int) -> None:
        """Start with an empty state.

        Raises:
            BadInput: the select needs more latents.
        """
        super().__init__()
        select.check(latents)
        self.rule, self.latents = select, latents
        self.world: World = ALONE
        self.across: World = ALONE
        for name, tensor in select.state(latents).items():
            self.register_buffer(name, tensor)
        for name, tensor in select.learned(latents).items():
            self.register_parameter(name, nn.Parameter(tensor))

    @property
    def together(self) -> World:
        """The processes among whose entries the largest of a batch are found."""
        return self.world if self.across.size == 1 else self.across

    def forward(self, pre: Tensor) -> Tensor:
        """Pre-activations ``(..., latents)`` → code of the same shape."""
        return self.rule.code(pre, self)

    def forward_(self, pre: Tensor) -> Tensor:
        """The code, overwriting the pre-activations."""
        return self.rule.code_(pre, self)

    @torch.no_grad()
    def sparse(self, pre: Tensor) -> SparseCode | None:
        """The code ``(batch, latents)`` as a list, if a list is faster; else None."""
        return self.rule.sparse(pre, self)

    @torch.no_grad()
    def rescale(self, scale: float | Tensor) -> None:
        """Work on pre-activations divided by ``scale`` from now on."""
        self.rule.rescale(self, scale)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring what is learned back to what is allowed, after a step."""
        self.rule.constrain(self)

    @torch.no_grad()
    def average(self, name: str, value: Tensor, most: int) -> None:
        """Update a buffer to the running mean of a value over about ``most`` batches.

        The buffer ``batches`` counts them.
        """
        batches, mean = self.get_buffer("batches"), self.get_buffer(name)
        batches += 1
        mean += (1 / batches.clamp_max(most)) * (value - mean)


def selected(pre: Tensor, pools: Sequence[Selection]) -> Tensor:
    """The code of pre-activations, of each pool's latents by itself."""
    if len(pools) == 1:
        code: Tensor = pools[0](pre)
        return code
    split = torch.split(pre, [pool.latents for pool in pools], dim=-1)
    return torch.cat([pool(part) for pool, part in zip(pools, split, strict=True)], dim=-1)
