"""A code as a list of the latents that are on, for sums that skip the others."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# A code becomes a list if fewer than this fraction of its latents are on: each entry costs more
# than in a dense product, and the two break even at about a tenth.
SPARSE = 1 / 16

# The same on a CUDA device, where an entry costs what is read of memory, and a dense product next
# to nothing.
SPARSE_CUDA = 1 / 256

# Row of a matrix that fits in the registers of a multiprocessor, several times.
WIDEST = 8192

# One in this many rows of a batch is enough for an estimate.
SAMPLE_EVERY = 16


def sparse_below(pre: Tensor) -> float:
    """Below which share of the latents that are on a list is faster, where ``pre`` is."""
    return SPARSE_CUDA if pre.is_cuda else SPARSE


def has_kernels(x: Tensor) -> bool:
    """Whether there are kernels (``kernels.py``) for the device of a tensor: CUDA, and Triton."""
    return x.is_cuda and _has_triton()


def has_row_kernels(matrix: Tensor) -> bool:
    """Whether there are kernels for its rows, which they hold in registers as a whole."""
    return has_kernels(matrix) and matrix.is_contiguous() and matrix.shape[1] <= WIDEST


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@dataclass(frozen=True)
class SparseCode:
    """The latents of a batch that are on: ``n`` entries, ordered by token.

    Args:
        tokens: the token of each entry, int64 ``(n,)``, ascending.
        latents: the latent that is on, int64 ``(n,)``.
        values: its activation, ``(n,)``, not zero.
        shape: of the dense code, ``(batch, d_sae)``.
    """

    tokens: Tensor
    latents: Tensor
    values: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, f: Tensor) -> "SparseCode":
        """The list of a dense code ``(batch, d_sae)``."""
        tokens, latents = f.nonzero(as_tuple=True)
        return cls(tokens, latents, f[tokens, latents].float(), (f.shape[0], f.shape[1]))

    def dense(self) -> Tensor:
        """The dense code, ``(batch, d_sae)``."""
        zeros = self.values.new_zeros(self.shape)
        return zeros.index_put((self.tokens, self.latents), self.values)

    def times(self, rows: Tensor) -> Tensor:
        """``f rows``: for each token the sum of its latents' rows, ``(d_sae, d) → (batch, d)``."""
        return _sums(self.tokens, self.shape[0], self.latents, self.values, rows)

    def part(self, first: int, stop: int) -> "SparseCode":
        """The entries of some latents in a row, which are counted from the first of these."""
        if (first, stop) == (0, self.shape[1]):
            return self
        on = (self.latents >= first) & (self.latents < stop)
        shape = self.shape[0], stop - first
        return SparseCode(self.tokens[on], self.latents[on] - first, self.values[on], shape)

    def dots(self, given: Tensor, rows: Tensor) -> Tensor:
        """``(given rowsᵀ)`` only where a latent is on, ``(n,)``.

        Args:
            given: of each token, ``(batch, d)``.
            rows: of each latent, ``(d_sae, d)``.
        """
        from rkstore.dictionaries import kernels

        begins = _begins(self.tokens, self.shape[0])
        return kernels.dots(begins, self.latents, given.contiguous(), rows.contiguous())


Code = Tensor | SparseCode


def latents_of(f: Code, first: int, stop: int) -> Code:
    """Some latents in a row of a code ``(..., d_sae)``, or of a list."""
    return f.part(first, stop) if isinstance(f, SparseCode) else f[..., first:stop]


def product(f: Code, W_dec: Tensor, bias: Tensor | None) -> Tensor:
    """``f W_dec + b``, of a code ``(..., latents)`` or a list."""
    if isinstance(f, Tensor):
        return F.linear(f, W_dec.T, bias)
    y = f.times(W_dec)
    return y if bias is None else y.add_(bias)


@dataclass(frozen=True)
class ByLatent:
    """The entries of a code ordered by latent, for gradients of the weights.

    The order is stable, so that the same batch gives bit-identical sums.
    """

    code: SparseCode
    order: Tensor

    @classmethod
    def of(cls, code: SparseCode) -> "ByLatent":
        return cls(code, ascending(code.latents))

    def times(self, values: Tensor, rows: Tensor) -> Tensor:
        """``fᵀ rows`` for a code with these ``values (n,)``: ``(batch, d) → (d_sae, d)``."""
        code, order = self.code, self.order
        owners = code.latents[order]
        return _sums(owners, code.shape[1], code.tokens[order], values[order], rows)


def ascending(keys: Tensor) -> Tensor:
    """The order that sorts ``keys (n,)``, stable."""
    if _of_16_bits(keys):  # NumPy counts these instead of comparing them: ten times as fast
        return torch.from_numpy(keys.numpy().astype(np.uint16).argsort(kind="stable"))
    # As a matrix of one row, which one thread sorts: while threads prepare the next batch,
    # sorting with all of them takes many times longer.
    return keys.unsqueeze(0).argsort(dim=1, stable=True).squeeze(0)


def _of_16_bits(keys: Tensor) -> bool:
    """Whether all are whole numbers from 0 to 65,535 in main memory."""
    if keys.device.type != "cpu" or keys.is_floating_point() or not len(keys):
        return False
    lowest, highest = keys.aminmax()
    return int(lowest) >= 0 and int(highest) < 2**16


def _sums(owners: Tensor, count: int, indices: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """For each of ``count`` owners the weighted sum of the rows of its entries, ``(count, d)``.

    ``owners`` is ascending; an owner without entries has zeros.
    """
    begins = _begins(owners, count)
    if has_kernels(rows) and not torch.is_grad_enabled():
        from rkstore.dictionaries import kernels

        return kernels.sums(begins, indices, weights, rows.contiguous())
    begins = begins[:-1]
    return F.embedding_bag(indices, rows, begins, mode="sum", per_sample_weights=weights)


def _begins(owners: Tensor, count: int) -> Tensor:
    """The first entry of each owner, and the number of all, int64 ``(count + 1,)``."""
    return torch.searchsorted(owners, torch.arange(count + 1, device=owners.device))
