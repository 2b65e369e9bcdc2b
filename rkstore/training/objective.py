"""The training loss, differentiated automatically.

    reconstruction   mean over prefixes of Σ_sites ‖ŷ - y‖², mean over tokens
    l1, …            losses of the select
    auxk, …          losses of the helpers

Each is logged by its name.

The hand-written gradient (``fast/``) computes the same numbers faster, where ``covers.py`` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.losses import error, select_losses
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.world import World
from rkstore.training.helpers.base import Helper


@dataclass(frozen=True)
class Pass:
    """One pass of a batch through a dictionary: the inputs of the loss terms.

    Args:
        rows: activations by site, ``(n, width)``.
        pre: pre-activations, ``(n, latents)``.
        f: the code, ``(n, latents)``, or ``(sites, n, latents)`` with a code per site.
        levels: the reconstruction by each prefix, by written site; the last by all latents.
        shares: the prefixes.
        dead: which latents count as dead, bool ``(latents,)``.
        pressure: fraction of the sparsity losses to apply, 0 to 1.
    """

    dictionary: Dictionary
    rows: Rows
    pre: Tensor
    f: Tensor
    levels: Sequence[Rows]
    shares: tuple[float, ...]
    dead: Tensor
    pressure: float = 1.0

    @property
    def world(self) -> World:
        """The processes that the batch is spread over."""
        return self.dictionary.pools[0].world

    @property
    def decoded(self) -> Rows:
        """The reconstruction by all latents, by written site."""
        return self.levels[-1]

    @property
    def weighed(self) -> Tensor:
        """The code as penalties count it: by the code norm, if there is one."""
        if self.dictionary.wiring.norm == "none":
            return self.f
        c = self.dictionary.weights()
        return self.f * (c.unsqueeze(1) if self.f.dim() == 3 else c)


@dataclass(frozen=True)
class Objective:
    """The loss to minimise.

    Args:
        prefixes: which parts of a code are to reconstruct by themselves: all of it in a plain
            dictionary, also its first parts in a nested one (Matryoshka).
        helpers: additional losses.
    """

    prefixes: Prefixes = WHOLE
    helpers: Sequence[Helper] = ()

    def __call__(
        self,
        dictionary: Dictionary,
        rows: Rows,
        dead: Tensor,
        pressure: float = 1.0,
        shares: tuple[float, ...] | None = None,
    ) -> tuple[dict[str, Tensor], Pass]:
        """Losses by name, scalars whose sum is minimised, and what they were computed from.

        Args:
            dead: which latents count as dead, bool ``(latents,)``.
            pressure: fraction of the sparsity losses to apply, 0 to 1.
            shares: the prefixes of this batch; those of the objective by default.
        """
        shares = shares or self.prefixes.shares
        pre = dictionary.pre(rows)
        f = dictionary.code(pre)
        levels = self.prefixes.decodings(dictionary, f, rows, shares)
        now = Pass(dictionary, rows, pre, f, levels, shares, dead, pressure)
        losses = {"reconstruction": torch.stack([error(y, rows) for y in levels]).mean()}
        losses |= select_losses(dictionary, rows, pre, f, dead, pressure)
        for helper in self.helpers:
            term = helper.loss(now)
            if term is not None:
                losses[helper.name] = term
        return losses, now
