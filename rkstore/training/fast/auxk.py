"""The gradient of AuxK's term by hand (:mod:`rkstore.training.helpers.auxk`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.fast.scratch import Columns, grad_of
from rkstore.training.helpers.auxk import AuxK, added, code_of_dead, weight


@dataclass(frozen=True)
class DeadCode:
    """A code of dead latents.

    Args:
        level: the prefix whose error it is to reconstruct.
        dead: numbers of the dead latents, ``(d,)``.
        z: their code, ``(batch, d)``.
        share: of this term in the loss.
    """

    level: int
    dead: Tensor
    z: Tensor
    share: float


def codes_of_dead(
    dictionary: Dictionary,
    blocks: Sequence[Tensor],
    helper: AuxK,
    dead: Tensor,
    shares: Sequence[float],
) -> list[DeadCode]:
    """The codes of the term: one, or, by level, one for each prefix that adds dead latents.

    Args:
        blocks: pre-activations, ``(batch, latents)`` of some latents each.
        dead: which latents are dead, bool ``(d_sae,)``.
        shares: the prefixes of this batch.
    """
    across = dictionary.pools[0].across
    if across.size == 1 and not dead.any():
        return []
    pre = blocks[0] if len(blocks) == 1 else torch.cat(list(blocks), dim=1)
    signed = dictionary.pools[0].rule.signed
    groups = {len(shares) - 1: dead}
    if helper.auxk_levels:
        groups = {i: dead & new for i, new in enumerate(added(dictionary, shares))}
    found = {
        level: code_of_dead(pre, some, helper.auxk, signed=signed, across=across)
        for level, some in groups.items()
    }
    return [DeadCode(i, *code, 1 / len(groups)) for i, code in found.items() if code is not None]


def add_gradients(
    dictionary: Dictionary,
    y: list[Tensor],
    inputs: Sequence[Tensor],
    residual: Tensor,
    of_dead: DeadCode,
) -> Tensor:
    """Add the derivatives of the term to the ``grad`` of each parameter; the term itself.

    With ``g = 2 weight (Σ_banks z W_dec - e) / n`` and, for each bank and its dead latents alone,
    ``h = (g W_decᵀ) · [z ≠ 0]``: ``W_dec: zᵀ g``, ``b_enc: Σ h``, ``W_enc: cᵀ h``, ``b_dec: -(Σ h)
    W_encᵀ``.

    Args:
        y: targets ``(batch, width)`` of each written site.
        inputs: what each bank's encoder reads, ``(batch, d_in)``.
        residual: ``ŷ - y`` of all written sites side by side, which is ``-e``.
    """
    dead, z = of_dead.dead, of_dead.z
    wiring, first, of_banks = dictionary.wiring, 0, []
    across = dictionary.pools[0].across
    # It counts once where each process decodes some of the latents.
    g = residual.clone() if across.first else torch.zeros_like(residual)
    for x, (bank, weights) in zip(inputs, dictionary.banks, strict=True):
        mine = (dead >= first) & (dead < first + bank.latents)
        latents = dead[mine] - first
        first += bank.latents
        writes = Columns.of_sites(bank.writes, wiring.writes)
        code, W_dec = z[:, mine], weights.W_dec[latents].to(z.dtype)
        writes.add(g, (code @ W_dec).float())
        of_banks.append((x, bank, weights, latents, code, W_dec, writes))
    across.add_up(g)
    widths = [site.width for site in wiring.writes]
    errors = list(torch.split(residual, widths, dim=-1))
    scale = of_dead.share * weight(y, errors, dictionary.pools[0].world) / len(g)
    term = scale * g.square().sum()
    g *= 2 * scale
    for x, bank, weights, latents, code, W_dec, writes in of_banks:
        own = writes.of(g).to(z.dtype)
        h = (own @ W_dec.T) * (code != 0)
        sums = h.sum(dim=0, dtype=torch.float32)
        grad_of(weights.W_dec).index_add_(0, latents, (code.T @ own).float())
        grad_of(weights.W_enc).T.index_add_(0, latents, (h.T @ x.to(z.dtype)).float())
        grad_of(weights.b_enc).index_add_(0, latents, sums)
        if wiring.centred:
            reads = Columns.of_sites(bank.reads, wiring.writes)
            back = across.sum(weights.W_enc[:, latents] @ sums)
            reads.add(grad_of(dictionary.b_dec), back, alpha=-1)
    return term
