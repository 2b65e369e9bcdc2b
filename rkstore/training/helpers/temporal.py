"""Temporal contrast: the high-level latents of a token are to resemble those of the token before.

T-SAE (Bhalla et al. 2025, arXiv 2511.05541): what a text is about changes slowly, its syntax from
token to token. The first latents of the dictionary are the high-level ones. With their code ``z``
at ``n`` tokens and ``z'`` at the tokens before, and the cosine ``s(z_i, z'_j)``, the loss has
another term,

    temporal · ½ mean_i [ -ln softmax_j s(z_i, z'_j) - ln softmax_j s(z_j, z'_i) ]   at j = i

It needs batches in pairs, ``--order pairs``. In the paper the high-level latents reconstruct by
themselves as well: ``--prefixes 0.2,1``. The authors' code has inner products in place of cosines,
which depend on the scale of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.training.helpers.auxk import added
from rkstore.training.helpers.base import Helper

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.wirings import Wiring
    from rkstore.training.objective import Pass


class Temporal(Helper):
    """The term above, on the first latents of every bank together."""

    name = "temporal"
    order = "pairs"
    temporal: float = option(
        0.0,
        "Weight of the contrastive loss of T-SAE, by which the first latents tell a token and the "
        "one before it from all others; needs --order pairs. Differentiated automatically, which "
        "takes two to five times as long a step. 0 is off.",
        least=0.0,
        newer=True,
    )
    temporal_share: float = option(
        0.2,
        "Share of the latents, from the first, that the contrastive loss is on.",
        least=0.0,
        newer=True,
    )

    @property
    def asked_for(self) -> bool:
        return self.temporal > 0

    def check(self, wiring: Wiring) -> None:
        if self.asked_for and not self.temporal_share <= 1:
            raise BadInput(f"--temporal-share is {self.temporal_share:g}: it must be at most 1")
        least = min(round(self.temporal_share * bank.latents) for bank in wiring.banks)
        if self.asked_for and not least:
            raise BadInput(
                f"--temporal-share {self.temporal_share:g} is no latent of "
                f"{min(bank.latents for bank in wiring.banks)}: choose a larger one"
            )

    def loss(self, now: Pass) -> Tensor | None:
        import torch
        from torch.nn import functional as F

        (high,) = added(now.dictionary, (self.temporal_share,))
        code = now.f[..., high].float()
        if now.dictionary.wiring.views > 1:  # those of all sites side by side
            code = code.movedim(0, 1).flatten(1)
        z = F.normalize(code, dim=1)
        before, after = z[::2], z[1::2]
        s, mine = after @ before.T, torch.arange(len(after), device=code.device)
        return self.temporal * (F.cross_entropy(s, mine) + F.cross_entropy(s.T, mine)) / 2
