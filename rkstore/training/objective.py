"""The training loss, differentiated automatically.

    reconstruction   mean over prefixes of Σ_sites ‖ŷ - y‖², mean over tokens
    l1, …            sparsity losses of the select, times the pressure
    auxk, …          losses of the helpers

The hand-written gradient (``fast/``) computes the same numbers faster for common cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary, Rows
from rkstore.training.helpers.base import Helper


@dataclass(frozen=True)
class Pass:
    """One pass of a batch through a dictionary: the inputs of the loss terms.

    Args:
        rows: activations by site, ``(n, width)``.
        pre: pre-activations, ``(n, latents)``.
        f: the code, ``(n, latents)``.
        decoded: the reconstruction by all latents, by written site.
        dead: which latents count as dead, bool ``(latents,)``.
        pressure: fraction of the sparsity losses to apply, 0 to 1.
    """

    dictionary: Dictionary
    rows: Rows
    pre: Tensor
    f: Tensor
    decoded: Rows
    dead: Tensor
    pressure: float

    def error_of(self, decoded: Rows) -> Tensor:
        """``Σ ‖ŷ - y‖²`` over written sites, mean over tokens."""
        of_sites = [(y - self.rows[name]).square().sum() for name, y in decoded.items()]
        return torch.stack(of_sites).sum() / len(self.pre)


@dataclass(frozen=True)
class Objective:
    """The loss to minimise.

    Args:
        shares: of the latents whose reconstructions count, ascending: ``(1.0,)`` is a plain
            dictionary, several are nested ones (Matryoshka).
        helpers: additional losses.
    """

    shares: tuple[float, ...] = (1.0,)
    helpers: Sequence[Helper] = ()

    def __call__(
        self, dictionary: Dictionary, rows: Rows, dead: Tensor, pressure: float = 1.0
    ) -> tuple[dict[str, Tensor], Pass]:
        """Losses by name, scalars whose sum is minimised, and what they were computed from."""
        pre = dictionary.pre(rows)
        f = dictionary.code(pre)
        decoded = list(dictionary.decodings(f, self.shares))
        now = Pass(dictionary, rows, pre, f, decoded[-1], dead, pressure)
        losses = {"reconstruction": torch.stack([now.error_of(y) for y in decoded]).mean()}
        codes = torch.split(f, [pool.latents for pool in dictionary.pools], dim=-1)
        for pool, code in zip(dictionary.pools, codes, strict=True):
            for name, loss in pool.rule.losses(code).items():
                losses[name] = losses.get(name, 0.0) + pressure * loss
        for helper in self.helpers:
            term = helper.loss(now)
            if term is not None:
                losses[helper.name] = term
        return losses, now
