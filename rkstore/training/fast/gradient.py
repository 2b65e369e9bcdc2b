"""The gradient of the training loss of one bank, by hand.

With ``c = x - b_dec`` (or ``x``, if the wiring is not centred), ``f = select(c W_enc + b_enc)``,
``r = f W_dec + b_dec - y`` and n rows, the loss is ``‖r‖² / n + pressure · l1 · Σ f / n``, and its
derivatives are

    g     = 2 r / n                                   by ŷ
    h     = (g W_decᵀ + pressure · l1 / n) · [f > 0]  by the pre-activation
    W_dec: fᵀ g      b_enc: Σ h      W_enc: cᵀ h      b_dec: Σ g - (Σ h) W_encᵀ (centred) or Σ g

That is five products of the size batch · d_in · d_sae, where automatic differentiation needs a
sixth, ``h W_encᵀ``, only to sum its rows for ``b_dec``. For a sparse code all products but the
first, which computes the code, are sums over the few latents that are on. The term of AuxK is in
``auxk.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows, side_by_side
from rkstore.dictionaries.sparse import ByLatent, SparseCode
from rkstore.training.fast.auxk import add_gradients
from rkstore.training.fast.scratch import Scratch, grad_of
from rkstore.training.helpers.auxk import code_of_dead


@dataclass(frozen=True)
class Measured:
    """Results of a step; the next one on the same scratch overwrites them.

    Args:
        residual: ŷ - y, ``(batch, d_out)``.
        fired: which latents were on for any token, bool ``(d_sae,)``.
        f: the code, ``(batch, d_sae)``, or its entries above zero, ``(n,)``.
    """

    residual: Tensor
    fired: Tensor
    f: Tensor

    @property
    def l0(self) -> float:
        """Latents that were on, mean over tokens."""
        return self.f.count_nonzero().item() / len(self.residual)


@dataclass(frozen=True)
class _Batch:
    """The data of one step: inputs ``(batch, d_in)``, targets ``(batch, d_out)``, options."""

    dictionary: Dictionary
    centred: Tensor
    y: Tensor
    scratch: Scratch
    pressure: float

    @property
    def l1(self) -> float:
        """The penalty's term in the derivative with respect to each entry of the code."""
        return self.pressure * self.dictionary.pools[0].rule.l1_weight / len(self.y)


@torch.no_grad()
def gradients(
    dictionary: Dictionary,
    rows: Rows,
    scratch: Scratch,
    pressure: float = 1.0,
    dtype: torch.dtype = torch.float32,
    dead: Tensor | None = None,
    auxk: int = 0,
) -> Measured:
    """Set the ``grad`` of each parameter to the derivative of the loss over a batch.

    Args:
        rows: activations by site, float32 ``(batch, width)``.
        scratch: memory for the large intermediate matrices.
        pressure: fraction of the L1 penalty to apply.
        dtype: of the products; all sums and results are float32.
        dead: which latents are dead, bool ``(d_sae,)``; needed for AuxK.
        auxk: how many of them reconstruct the error of each token; 0 is off.
    """
    for parameter in dictionary.parameters():
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    (bank,) = dictionary.wiring.banks
    centred, y = dictionary.read(rows, bank), side_by_side(rows, bank.writes)
    batch = _Batch(dictionary, centred, y, scratch, pressure)
    pre = scratch.take("pre", (len(y), dictionary.d_sae), dtype, y.device)
    torch.mm(centred.to(dtype), dictionary.W_enc.to(dtype), out=pre)
    pre += dictionary.b_enc.to(dtype)
    # Before the full code, which may overwrite the pre-activations.
    of_dead = code_of_dead(pre, dead, auxk) if auxk and dead is not None else None
    code = dictionary.pools[0].sparse(pre)
    found = _dense(batch, pre) if code is None else _sparse(batch, code)
    if of_dead is not None:
        add_gradients(dictionary, y, centred, found.residual, *of_dead)
    return found


def _dense(batch: _Batch, pre: Tensor) -> Measured:
    """The four other products, with as few passes over ``(batch, d_sae)`` as possible."""
    dictionary = batch.dictionary
    dtype, W_dec = pre.dtype, dictionary.W_dec.to(pre.dtype)
    f = dictionary.pools[0].forward_(pre)
    residual = (f @ W_dec).float() + (dictionary.b_dec - batch.y)
    g = residual * (2 / len(batch.y))
    _product(f.T, g.to(dtype), out=grad_of(dictionary.W_dec))
    h = batch.scratch.take("h", (len(batch.y), dictionary.d_sae), dtype, pre.device)
    torch.mm(g.to(dtype), W_dec.T, out=h)
    if batch.l1:
        h += batch.l1
    # One pass; multiplying by [f > 0] takes two and a mask.
    torch.ops.aten.threshold_backward.grad_input(h, f, 0, grad_input=h)
    _product(h.T, batch.centred.to(dtype), out=grad_of(dictionary.W_enc).T)
    _fill_biases(dictionary, g, h.sum(dim=0).float())
    return Measured(residual, f.amax(dim=0) > 0, f)


def _sparse(batch: _Batch, code: SparseCode) -> Measured:
    """The same over the latents that are on: work for each entry, not for each latent."""
    dictionary, y = batch.dictionary, batch.y
    with torch.enable_grad():
        values = code.values.requires_grad_()
        decoded = code.times(dictionary.W_dec.detach())
    residual = decoded.detach() + (dictionary.b_dec - y)
    g = residual * (2 / len(y))
    # g W_decᵀ only where a latent is on: the derivative with respect to its value.
    h = torch.autograd.grad(decoded, values, g)[0] + batch.l1
    by_latent = ByLatent.of(code)
    dictionary.W_dec.grad = by_latent.times(code.values.detach(), g)
    dictionary.W_enc.grad = by_latent.times(h, batch.centred).T
    _fill_biases(dictionary, g, by_latent.times(h, y.new_ones(len(y), 1)).squeeze(1))
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool, device=y.device)
    fired[code.latents] = True
    return Measured(residual, fired, code.values.detach())


def _fill_biases(dictionary: Dictionary, g: Tensor, sums: Tensor) -> None:
    """The gradients of the biases from ``g (batch, d_out)`` and ``Σ h (d_sae,)``."""
    dictionary.b_enc.grad = sums
    dictionary.b_dec.grad = g.sum(dim=0)
    if dictionary.wiring.centred:
        dictionary.b_dec.grad -= dictionary.W_enc @ sums


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a b`` into ``out``, which may be of another dtype."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
