"""Code norms: how the norms of a latent's decoder rows weigh its activation.

A select ranks ``pre · c`` and keeps ``pre``; a sparsity loss sees ``f · c``. The five are those of
the crosscoders of Minder et al. (2025, arXiv 2504.02922) and of their code. The names are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The part of the crosscoder norm in mixed, as in the original code.
MIXED = 0.1


def none(norms: Tensor) -> Tensor:
    """1: the activation itself."""
    return norms.new_ones(1, norms.shape[1])


def sae(norms: Tensor) -> Tensor:
    """The norm over all written sites together, as if they were one."""
    joint: Tensor = norms.norm(dim=0, keepdim=True)
    return joint


def crosscoder(norms: Tensor) -> Tensor:
    """The sum of the norms at each site, which favours latents of few sites."""
    return norms.sum(dim=0, keepdim=True)


def mixed(norms: Tensor) -> Tensor:
    """``sae`` and a tenth of ``crosscoder``."""
    return sae(norms) + MIXED * crosscoder(norms)


def decoupled(norms: Tensor) -> Tensor:
    """The norm at each site for itself: a code per site, each with its own select."""
    return norms


# Each takes the norms of a latent's decoder rows ``(writes, latents)`` and gives ``c``,
# ``(1, latents)``, or ``(writes, latents)`` for a code per site.
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    norm.__name__: norm for norm in (none, sae, crosscoder, mixed, decoupled)
}
