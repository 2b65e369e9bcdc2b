"""AuxK: dead latents learn to reconstruct what the living ones leave over.

Gao et al. (2024, arXiv 2406.04093), appendix A.2. With the error ``e = x - x̂``, no gradient
through it, and ``z`` the ``k`` largest pre-activations of a token among the dead latents, if
above zero, the loss has another term, ``1/32 · ‖e - z W_dec‖²``. In their code both terms are
relative, each to the variance of what it reconstructs; the loss here is that one times the
variance of ``x``, which leaves the main term as it is and makes the other

    1/32 · (Σ‖x - x̄‖² / Σ‖e - ē‖²) · ‖e - z W_dec‖² / n
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary

COEFFICIENT = 1 / 32


@dataclass(frozen=True)
class AuxK:
    """What the term is asked for: the ``dead`` latents, bool ``(d_sae,)``, and how many, ``k``."""

    dead: Tensor
    k: int


@dataclass(frozen=True)
class DeadCode:
    """The code of the dead latents alone: their numbers ``(dead,)`` and ``z (batch, dead)``."""

    latents: Tensor
    z: Tensor

    @classmethod
    def of(cls, pre: Tensor, aux: AuxK) -> "DeadCode | None":
        """From pre-activations ``(batch, d_sae)``; None if no latent is dead."""
        latents = aux.dead.nonzero().squeeze(1)
        if not len(latents):
            return None
        values, places = pre[:, latents].topk(min(aux.k, len(latents)), dim=1, sorted=False)
        z = torch.zeros((len(pre), len(latents)), dtype=pre.dtype, device=pre.device)
        return cls(latents, z.scatter_(1, places, values.relu_()))


def weight(x: Tensor, residual: Tensor) -> Tensor:
    """What ``‖e - z W_dec‖² / n`` is multiplied with, a scalar; both are ``(batch, d_in)``."""
    variation = (x - x.mean(dim=0)).square().sum()
    left = (residual - residual.mean(dim=0)).square().sum()
    return COEFFICIENT * variation / left.clamp_min(1e-12)


def add_gradients(
    dictionary: Dictionary, x: Tensor, centred: Tensor, residual: Tensor, code: DeadCode
) -> None:
    """Add the derivatives of the term to the ``grad`` of each parameter.

    With ``g = 2 weight (z W_dec - e) / n`` and ``h = (g W_decᵀ) · [z > 0]``, for the dead latents
    alone: ``W_dec: zᵀ g``, ``b_enc: Σ h``, ``W_enc: cᵀ h``, ``b_dec: -(Σ h) W_encᵀ``.

    Args:
        x: activations ``(batch, d_in)``.
        centred: ``c = x - b_dec``.
        residual: ``x̂ - x``, which is ``-e``.
    """
    dead, z = code.latents, code.z
    W_dec = dictionary.W_dec[dead].to(z.dtype)
    g = ((z @ W_dec).float() + residual) * (2 * weight(x, residual) / len(x))
    h = (g.to(z.dtype) @ W_dec.T) * (z > 0)
    sums = h.sum(dim=0, dtype=torch.float32)
    _grad(dictionary.W_dec).index_add_(0, dead, (z.T @ g.to(z.dtype)).float())
    _grad(dictionary.W_enc).T.index_add_(0, dead, (h.T @ centred.to(z.dtype)).float())
    _grad(dictionary.b_enc).index_add_(0, dead, sums)
    _grad(dictionary.b_dec).sub_(dictionary.W_enc[:, dead] @ sums)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
