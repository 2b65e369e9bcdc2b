"""Entropy penalty: a token's activation is to lie in few latents, whatever their size.

With ``p = |f| / Σ|f|`` of a token, of the weighed code if there is a ``--code-norm``, the loss has
another term, ``entropy · pressure · mean H(p)``, with ``H(p) = -Σ p ln p`` in nats: 0 where one
latent is on, ``ln k`` where ``k`` are on equally. Unlike an L1 penalty it does not shrink the code.
``dictionary_learning`` named it experimental and removed it: there it split latents into dead and
very dense ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.settings import option
from rkstore.training.helpers.base import Helper

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.training.objective import Pass

# A latent that is off has neither a logarithm nor a share: any number above zero does.
LEAST = 1e-30


class Entropy(Helper):
    """The term above; with a code per site, of each of them, their mean."""

    name = "entropy"
    entropy: float = option(
        0.0,
        "Weight of the entropy, in nats, of how a token's activation is spread over latents; it "
        "makes the code sparser without shrinking it. Differentiated automatically, which takes "
        "two to five times as long a step. 0 is off.",
        least=0.0,
        newer=True,
    )

    @property
    def asked_for(self) -> bool:
        return self.entropy > 0

    @property
    def penalised(self) -> bool:
        return True

    def loss(self, now: Pass) -> Tensor | None:
        f = now.weighed.abs().float()
        p = f / f.sum(dim=-1, keepdim=True).clamp_min(LEAST)
        spread = -(p * p.clamp_min(LEAST).log()).sum(dim=-1)
        return self.entropy * now.pressure * spread.mean()
