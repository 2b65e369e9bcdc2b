"""One bank in one step: its share of the reconstruction, and the gradients of its weights.

In the notation of ``gradient.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Weights
from rkstore.dictionaries.sparse import ByLatent, SparseCode, has_kernels
from rkstore.training.fast.scratch import Columns, Scratch, grad_of


@dataclass(eq=False)
class Part(ABC):
    """A bank, or what it writes to one site if there is a code for each.

    Args:
        weights: of the bank.
        x: what the encoder reads, ``(batch, d_in)``.
        writes: the columns of the written sites, of all that are written.
        l1: the penalty's term in the derivative by each entry of the code.
    """

    weights: Weights
    x: Tensor
    writes: Columns
    l1: float

    @abstractmethod
    def decode(self, levels: Tensor) -> None:
        """Add to what each prefix has more than the one before, ``(prefixes, batch, d_out)``."""

    @abstractmethod
    def differentiate(self, D: Tensor) -> Tensor:
        """Set the gradients of ``W_dec``, ``W_enc`` and ``b_enc``; give ``Σ h (latents,)``.

        Args:
            D: derivative by what the latents of each prefix write, shaped like ``levels``.
        """

    @property
    @abstractmethod
    def fired(self) -> Tensor:
        """Which latents were on for any token, bool ``(latents,)``."""

    @property
    @abstractmethod
    def on(self) -> int:
        """How many entries of the code are not zero."""

    @property
    @abstractmethod
    def total(self) -> Tensor:
        """The sum of all entries of the code, a scalar."""


@dataclass(eq=False)
class Dense(Part):
    """A code ``f (batch, latents)`` as a matrix: four products, and as few other passes as
    possible.

    Args:
        ends: up to which latent each prefix goes.
    """

    f: Tensor
    ends: Sequence[int]
    scratch: Scratch

    @property
    def _slices(self) -> list[slice]:
        return [slice(a, b) for a, b in pairwise((0, *self.ends))]

    def decode(self, levels: Tensor) -> None:
        W_dec = self.weights.W_dec.to(self.f.dtype)
        for level, part in zip(levels, self._slices, strict=True):
            self.writes.add(level, (self.f[:, part] @ W_dec[part]).float())

    def differentiate(self, D: Tensor) -> Tensor:
        h = self.scratch.take("h", (len(self.f), self.f.shape[1]), self.f.dtype, self.f.device)
        self.back(D, h)
        if self.l1:
            h += self.l1
        # One pass; multiplying by [f > 0] takes two and a mask.
        torch.ops.aten.threshold_backward.grad_input(h, self.f, 0, grad_input=h)
        return self.encoder(h)

    def back(self, D: Tensor, h: Tensor) -> None:
        """Set the gradient of ``W_dec``, and ``h`` to the derivative by the code."""
        f, dtype = self.f, self.f.dtype
        W_dec = self.weights.W_dec.to(dtype)
        for level, part in zip(D, self._slices, strict=True):
            g = self.writes.of(level).to(dtype)
            _product(f[:, part].T, g, out=grad_of(self.weights.W_dec)[part])
            torch.mm(g, W_dec[part].T, out=h[:, part])

    def encoder(self, h: Tensor) -> Tensor:
        """Set the gradients of the encoder from the derivative by the pre-activations."""
        _product(h.T, self.x.to(h.dtype), out=grad_of(self.weights.W_enc).T)
        sums = h.sum(dim=0).float()
        self.weights.b_enc.grad = sums
        return sums

    @property
    def fired(self) -> Tensor:
        return self.f.amax(dim=0) > 0

    @property
    def on(self) -> int:
        return int(self.f.count_nonzero())

    @property
    def total(self) -> Tensor:
        return self.f.sum(dtype=torch.float32)


@dataclass(eq=False)
class Listed(Part):
    """A code as a list: work for each entry, not for each latent.

    Args:
        code: its tokens are those of each prefix in turn (``codes.py``).
        site: which columns of the decoder it is for.
        dtype: of what is multiplied, where there are kernels for it.
        more: whether another part of the same bank has already set the gradients of the encoder.
    """

    code: SparseCode
    site: Columns
    more: bool
    dtype: torch.dtype = torch.float32

    def decode(self, levels: Tensor) -> None:
        W_dec = self.site.of(self.weights.W_dec.detach())
        if has_kernels(W_dec):
            self._W_dec = W_dec.to(self.dtype)
            decoded = self.code.times(self._W_dec)
        else:
            with torch.enable_grad():
                self.code.values.requires_grad_()
                self._decoded = self.code.times(W_dec.contiguous())
            decoded = self._decoded.detach()
        self.writes.add(levels, decoded.view(*levels.shape[:2], -1))

    def differentiate(self, D: Tensor) -> Tensor:
        g, x = self.writes.of(D).flatten(0, 1), self.x
        # g W_decᵀ only where a latent is on: the derivative with respect to its value.
        if has_kernels(g):
            g, x = g.to(self.dtype), x.to(self.dtype)
            h = self.code.dots(g, self._W_dec) + self.l1
        else:
            h = torch.autograd.grad(self._decoded, self.code.values, g)[0] + self.l1
        by_latent = ByLatent.of(self.code)
        W_enc, b_enc, W_dec = self.weights
        self.site.put(W_dec, by_latent.times(self.code.values.detach(), g))
        tokens = self.code.tokens if len(D) == 1 else self.code.tokens % len(self.x)
        by_latent = replace(by_latent, code=replace(self.code, tokens=tokens))
        sums = by_latent.times(h, self.x.new_ones(len(self.x), 1)).squeeze(1)
        of_encoder = by_latent.times(h, x).T
        W_enc.grad = grad_of(W_enc) + of_encoder if self.more else of_encoder
        b_enc.grad = grad_of(b_enc) + sums if self.more else sums
        return sums

    @property
    def fired(self) -> Tensor:
        latents = self.code.latents
        fired = torch.zeros(self.code.shape[1], dtype=torch.bool, device=latents.device)
        fired[latents] = True
        return fired

    @property
    def on(self) -> int:
        return len(self.code.values)

    @property
    def total(self) -> Tensor:
        return self.code.values.detach().sum()

    @property
    def entries(self) -> Tensor:
        """Each entry as a number, ``token · latents + latent``, in any order."""
        return self.code.tokens % len(self.x) * self.code.shape[1] + self.code.latents


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a b`` into ``out``, which may be of another dtype."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda and hasattr(torch.ops.aten.mm, "dtype_out"):  # since torch 2.8
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        out.copy_(a @ b)
