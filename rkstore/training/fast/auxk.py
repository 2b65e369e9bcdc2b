"""The gradient of AuxK's term by hand (:mod:`rkstore.training.helpers.auxk`)."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.fast.scratch import grad_of
from rkstore.training.helpers.auxk import weight


def add_gradients(
    dictionary: Dictionary, y: Tensor, centred: Tensor, residual: Tensor, dead: Tensor, z: Tensor
) -> None:
    """Add the derivatives of the term to the ``grad`` of each parameter.

    With ``g = 2 weight (z W_dec - e) / n`` and ``h = (g W_decᵀ) · [z > 0]``, for the dead latents
    alone: ``W_dec: zᵀ g``, ``b_enc: Σ h``, ``W_enc: cᵀ h``, ``b_dec: -(Σ h) W_encᵀ``.

    Args:
        y: targets ``(batch, d_out)``.
        centred: the encoder's inputs, ``(batch, d_in)``.
        residual: ``ŷ - y``, which is ``-e``.
        dead: numbers of the dead latents, ``(d,)``, and ``z (batch, d)``, their code.
    """
    W_dec = dictionary.W_dec[dead].to(z.dtype)
    g = ((z @ W_dec).float() + residual) * (2 * weight([y], [residual]) / len(y))
    h = (g.to(z.dtype) @ W_dec.T) * (z > 0)
    sums = h.sum(dim=0, dtype=torch.float32)
    grad_of(dictionary.W_dec).index_add_(0, dead, (z.T @ g.to(z.dtype)).float())
    grad_of(dictionary.W_enc).T.index_add_(0, dead, (h.T @ centred.to(z.dtype)).float())
    grad_of(dictionary.b_enc).index_add_(0, dead, sums)
    if dictionary.wiring.centred:
        grad_of(dictionary.b_dec).sub_(dictionary.W_enc[:, dead] @ sums)
