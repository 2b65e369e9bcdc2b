"""Ghost gradients: dead latents are moved towards what would lower the error.

Jermyn & Templeton (2024), "Ghost Grads: An improvement on resampling", in Anthropic's "Circuits
Updates - January 2024". A dead latent has no gradient of its own, so in a second pass the dead ones
alone decode ``exp(pre)``, which has one everywhere. With the error ``e = y - ŷ``, no gradient
through it, and ``g = exp(pre) W_dec`` of a token's dead latents, without ``b_dec``,

    s = ‖e‖ / (2 ‖g‖)                            of each token: half as long as the error
    r = mean ‖e‖² / mean ‖s g - e‖²              as large as the reconstruction loss
    ghost = r · mean ‖s g - e‖²

where ``s`` and ``r`` are constants. So what is logged is the reconstruction loss once more, at the
sites that dead latents write; what matters is its gradient. SAELens 3 took ``r`` by token and
dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.settings import option
from rkstore.training.helpers.base import Helper

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.training.objective import Pass


class Ghost(Helper):
    """The term above, of all written sites side by side."""

    name = "ghost"
    ghost_gradients: bool = option(
        False,
        "Move dead latents by the error that is left, through exp(pre) in place of their code "
        "(Jermyn & Templeton). Differentiated automatically, which takes two to five times as "
        "long a step; --auxk does not.",
        newer=True,
    )

    @property
    def asked_for(self) -> bool:
        return self.ghost_gradients

    def loss(self, now: Pass) -> Tensor | None:
        import torch

        if not now.dead.any():
            return None
        ghosts = _ghosts(now)
        written = _written(now.dictionary, now.dead)
        error = torch.cat([(now.rows[name] - now.decoded[name]).detach() for name in written], -1)
        g = torch.cat([ghosts[name] for name in written], dim=-1).float()
        s = error.norm(dim=-1, keepdim=True) / (2 * g.detach().norm(dim=-1, keepdim=True) + 1e-12)
        left: Tensor = (s * g - error).square().sum(dim=-1).mean()
        whole = now.world.mean(error.square().sum(dim=-1).mean())
        return left * (whole / now.world.mean(left.detach()).clamp_min(1e-12))


def _ghosts(now: Pass) -> dict[str, Tensor]:
    """``g`` by site, each token by a factor of its own, which ``s`` takes out again."""
    latents = now.dead.nonzero().squeeze(1)
    pre = now.pre[:, latents]
    # Less than 1, as otherwise one pre-activation of 90 would be infinite.
    ghost = (pre - pre.detach().amax(dim=1, keepdim=True)).exp().to(now.pre.dtype)
    f = now.pre.new_zeros(now.pre.shape).index_copy(1, latents, ghost)
    views = now.dictionary.wiring.views
    (decoded,) = now.dictionary.decodings(f.expand(views, *f.shape) if views > 1 else f, bias=False)
    return decoded


def _written(dictionary: Dictionary, dead: Tensor) -> list[str]:
    """The sites that these latents write; the error elsewhere says nothing of them."""
    names, first = dict[str, None](), 0
    for bank, _ in dictionary.banks:
        if dead[first : first + bank.latents].any():
            names |= dict.fromkeys(site.hook_name for site in bank.writes)
        first += bank.latents
    return list(names)
