"""The gradient of the training loss, written out.

With ``c = x - b_dec``, ``f = select(c W_enc + b_enc)``, ``r = f W_dec + b_dec - x`` and n rows,
the loss is ``‖r‖² / n + pressure · l1 · Σ f / n``, and its derivatives are

    g     = 2 r / n                                   by x̂
    h     = (g W_decᵀ + pressure · l1 / n) · [f > 0]  by the pre-activation
    W_dec: fᵀ g      b_enc: Σ h      W_enc: cᵀ h      b_dec: Σ g - (Σ h) W_encᵀ

That is five products of the size batch · d_in · d_sae, where automatic differentiation takes
a sixth, ``h W_encᵀ``, only to sum its rows for ``b_dec``. Of a sparse code's products all but
the first, which finds the code, are sums over the few latents that are on. What AuxK adds, if
it is asked for, is in ``auxk.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.sparse import ByLatent, SparseCode
from rkstore.training.fast.scratch import Scratch
from rkstore.training.helpers.auxk import AuxK, DeadCode, add_gradients


@dataclass(frozen=True)
class Forward:
    """What the forward half of a step found out; the next one on this scratch overwrites it.

    Args:
        residual: x̂ - x, ``(batch, d_in)``.
        fired: which latents were on for any token, bool ``(d_sae,)``.
        f: the code, ``(batch, d_sae)``, or what is above zero in it, ``(n,)``.
    """

    residual: Tensor
    fired: Tensor
    f: Tensor

    @property
    def l0(self) -> float:
        """Latents that were on, mean over tokens."""
        return self.f.count_nonzero().item() / len(self.residual)


@torch.no_grad()
def fill_gradients(
    dictionary: Dictionary,
    x: Tensor,
    scratch: Scratch,
    pressure: float = 1.0,
    dtype: torch.dtype = torch.float32,
    aux: AuxK | None = None,
) -> Forward:
    """Set the ``grad`` of each parameter to the derivative of the loss over a batch.

    Args:
        x: activations, float32 ``(batch, d_in)``.
        scratch: where the large intermediate matrices go.
        pressure: share of the L1 penalty that is asked for.
        dtype: of the products; everything that is summed up or kept is float32.
        aux: which latents are dead and how many of them reconstruct the error; without it
            the loss has no such term.
    """
    for parameter in dictionary.parameters():
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    centred = x - dictionary.b_dec
    pre = scratch.take("pre", (len(x), dictionary.d_sae), dtype, x.device)
    torch.mm(centred.to(dtype), dictionary.W_enc.to(dtype), out=pre)
    pre += dictionary.b_enc.to(dtype)
    # Before the code of all, which may be written over the pre-activations.
    dead = None if aux is None else DeadCode.of(pre, aux)
    code = dictionary.select.sparse(pre)
    if code is not None:
        found = _sparse(dictionary, x, centred, code, pressure)
    else:
        found = _dense(dictionary, x, centred, pre, scratch, pressure)
    if dead is not None:
        add_gradients(dictionary, x, centred, found.residual, dead)
    return found


def _dense(
    dictionary: Dictionary,
    x: Tensor,
    centred: Tensor,
    pre: Tensor,
    scratch: Scratch,
    pressure: float,
) -> Forward:
    """The four other products, and as few passes over ``(batch, d_sae)`` as there can be."""
    dtype, W_dec = pre.dtype, dictionary.W_dec.to(pre.dtype)
    f = dictionary.select.forward_(pre)
    residual = (f @ W_dec).float() + (dictionary.b_dec - x)
    g = residual * (2 / len(x))
    _product(f.T, g.to(dtype), out=_grad(dictionary.W_dec))
    h = scratch.take("h", (len(x), dictionary.d_sae), dtype, x.device)
    torch.mm(g.to(dtype), W_dec.T, out=h)
    if dictionary.select.l1:
        h += pressure * dictionary.select.l1 / len(x)
    # One pass, where multiplying by [f > 0] is two and a mask.
    torch.ops.aten.threshold_backward.grad_input(h, f, 0, grad_input=h)
    _product(h.T, centred.to(dtype), out=_grad(dictionary.W_enc).T)
    _fill_biases(dictionary, g, h.sum(dim=0).float())
    return Forward(residual, f.amax(dim=0) > 0, f)


def _sparse(
    dictionary: Dictionary, x: Tensor, centred: Tensor, code: SparseCode, pressure: float
) -> Forward:
    """The same over the latents that are on: work for each entry, not for each latent."""
    with torch.enable_grad():
        values = code.values.requires_grad_()
        decoded = code.times(dictionary.W_dec.detach())
    residual = decoded.detach() + (dictionary.b_dec - x)
    g = residual * (2 / len(x))
    # g W_decᵀ where a latent is on, which is the derivative by its value, and nowhere else.
    h = torch.autograd.grad(decoded, values, g)[0] + pressure * dictionary.select.l1 / len(x)
    by_latent = ByLatent.of(code)
    dictionary.W_dec.grad = by_latent.times(code.values.detach(), g)
    dictionary.W_enc.grad = by_latent.times(h, centred).T
    _fill_biases(dictionary, g, by_latent.times(h, x.new_ones(len(x), 1)).squeeze(1))
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool, device=x.device)
    fired[code.latents] = True
    return Forward(residual, fired, code.values.detach())


def _fill_biases(dictionary: Dictionary, g: Tensor, sums: Tensor) -> None:
    """The gradients of the biases from ``g (batch, d_in)`` and ``Σ h (d_sae,)``."""
    dictionary.b_enc.grad = sums
    dictionary.b_dec.grad = g.sum(dim=0) - dictionary.W_enc @ sums


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a b`` into ``out``, which may be of another dtype."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
