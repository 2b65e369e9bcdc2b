"""rkcnn-unscored and sparse-random: rkcnn without one of its ingredients, for experiments.

From ``rkcnn`` to ``tied`` each removes one thing, so that a gain can be attributed to it:

    rkcnn            principal directions of the subsets with the best scores, and rows
    rkcnn-unscored   principal directions of random subsets, and rows
    sparse-random    random directions in the same random subsets, and rows
    datapoint        random directions, and rows (in equal parts with --datapoint-share 0.5)
    tied             random directions
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.training.inits.base import Start
from rkstore.training.inits.rkcnn import MinedRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Unscored(MinedRows):
    """``rkcnn`` with as many subsets drawn as kept, so that the score selects nothing."""

    name = "rkcnn-unscored"

    def fill(self, start: Start, generator: torch.Generator) -> int:
        return self.begin_at(self.unscored(start), start, generator)

    def unscored(self, start: Start) -> Tensor:
        """As many directions as there are latents for them, ``(n, d_in)``."""
        mined = self.mined_latents(start)
        return self.mine(start, drawn=mined, kept=mined)


class SparseRandom(Unscored):
    """Gaussian directions where those of ``rkcnn-unscored`` are not zero."""

    name = "sparse-random"

    def fill(self, start: Start, generator: torch.Generator) -> int:
        import torch
        from torch.nn import functional as F

        mined = self.unscored(start)
        # From a separate generator, so that the rows are the same as for the other inits.
        own = torch.Generator().manual_seed(start.seed + 1)
        values = torch.randn(mined.shape, generator=own)
        directions = F.normalize(torch.where(mined != 0, values, 0), dim=1)
        self.begin_at(directions, start, generator)
        return 0
