"""Prefixes: parts of a code that are to reconstruct by themselves (Matryoshka).

Two orders: the latents in the order of the dictionary (Bussmann et al. 2025, arXiv 2503.17547), so
that the first ones become general and the later ones special; or those of a token from the most
active to the least ("Train One Sparse Autoencoder Across Multiple Sparsity Budgets", EMNLP 2025,
HierarchicalTopK), so that one dictionary is good at every ``k`` up to its own.

The loss is the mean of the errors of all prefixes, each a sum of squares, as in
``dictionary_learning``. In SAELens it is their sum: multiply ``--lr`` accordingly only for SGD,
Adam does not see the factor, but divide ``--l1`` and the weights of other losses by the number of
prefixes. Bussmann et al. also count the bias alone: begin ``--prefixes`` with 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rkstore.errors import BadInput

if TYPE_CHECKING:  # reading the options must not import torch
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.rows import Rows

ORDERS = ("latents", "activations")


@dataclass(frozen=True)
class Prefixes:
    """Which parts of a code are decoded by themselves.

    Args:
        shares: of the latents of each bank, or of the ``k`` active ones; ascending, from 0 to 1,
            the last 1.
        order: of the latents: one of ``ORDERS``.
        draws: how many shares besides 1 to draw anew for each batch instead, each uniform in
            (0, 1); 0 for the fixed ones.

    Raises:
        BadInput: there are no such prefixes.
    """

    shares: tuple[float, ...] = (1.0,)
    order: str = "latents"
    draws: int = 0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.shares))
        if not self.shares or not rising or self.shares[0] < 0 or self.shares[-1] != 1:
            given = ",".join(f"{share:g}" for share in self.shares)
            raise BadInput(
                f"--prefixes is {given or 'empty'}: give rising shares of the latents that end "
                "with 1, such as 0.125,0.25,0.5,1"
            )
        if self.draws and self.shares != (1.0,):
            raise BadInput("--prefix-draws draws the prefixes: leave out --prefixes")

    @property
    def whole(self) -> bool:
        """Whether only the whole code counts."""
        return self.shares == (1.0,) and not self.draws

    def at(self, step: int, seed: int) -> tuple[float, ...]:
        """The shares of a batch; drawn ones depend only on the step and the seed."""
        if not self.draws:
            return self.shares
        drawn = np.random.default_rng([seed, step]).uniform(size=self.draws)
        return (*sorted(set(drawn.tolist())), 1.0)

    def decodings(
        self, dictionary: Dictionary, f: Tensor, rows: Rows, shares: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        """The reconstruction by each prefix, by written site."""
        if self.order == "latents" or self.whole:
            return list(dictionary.decodings(f, shares, rows=rows))
        levels: list[dict[str, Tensor]] = []
        for part in by_activation(f, shares):
            (y,) = dictionary.decodings(part, rows=rows, bias=not levels)
            levels.append({name: levels[-1][name] + y[name] for name in y} if levels else y)
        return levels


def by_activation(f: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """A code in parts: the most active latents of each token first, for each share of those on.

    The parts add up to the code ``(..., d_sae)``.
    """
    import torch

    order = f.detach().abs().argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(
        -1, order, torch.arange(f.shape[-1], device=f.device).expand_as(order)
    )
    on = (f != 0).sum(dim=-1, keepdim=True)
    ends = [(on * share).round() for share in (0.0, *shares)]
    return [f * ((ranks >= a) & (ranks < b)) for a, b in pairwise(ends)]


WHOLE = Prefixes()
