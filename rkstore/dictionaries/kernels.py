# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Kernels for a CUDA device, in Triton: sums over the few latents that are on, and over rows.

Imported only where there is one (:func:`rkstore.dictionaries.sparse.has_kernels`). torch's own
``embedding_bag`` reads one row at a time, so that a latent that is on for many tokens holds up all
others; here several are on their way at once. The order of every sum is fixed. Triton starts a
kernel on the current device, so each makes that of its tensors the current one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Entries of a list that are read at once, and columns of their rows: the fastest of those tried on
# an H100, where 16 and 512 took four times as long to sum by latent.
SUMMED, DOTTED = (8, 1024), (16, 512)


@triton.jit
def _sums(begins, indices, weights, rows, out, width, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    owner = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first, last = tl.load(begins + owner), tl.load(begins + owner + 1)
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(first, last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        index = tl.load(indices + entry, mask=entry < last, other=0)
        weight = tl.load(weights + entry, mask=entry < last, other=0).to(tl.float32)
        here = (entry < last)[:, None] & (at < width)[None, :]
        part = tl.load(rows + index[:, None] * width + at[None, :], mask=here, other=0)
        total += tl.sum(part.to(tl.float32) * weight[:, None], axis=0)
    tl.store(out + owner * width + at, total, mask=at < width)


def sums(begins: Tensor, indices: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """For each owner the weighted sum of the rows of its entries, float32 ``(owners, d)``.

    Args:
        begins: its first entry, and at the end the number of all, int64 ``(owners + 1,)``.
        indices: the row of each entry, int64 ``(n,)``.
        weights: of each entry, ``(n,)``.
        rows: ``(m, d)``, contiguous, of any float type.
    """
    owners, width = len(begins) - 1, rows.shape[1]
    out = torch.empty(owners, width, device=rows.device)
    entries, columns = SUMMED
    columns = min(columns, triton.next_power_of_2(width))
    grid = (owners, triton.cdiv(width, columns))
    with torch.cuda.device_of(rows):
        _sums[grid](begins, indices, weights, rows, out, width, entries, columns)
    return out


@triton.jit
def _dots(begins, indices, given, rows, out, width, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    owner = tl.program_id(0).to(tl.int64)
    first, last = tl.load(begins + owner), tl.load(begins + owner + 1)
    for start in range(first, last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        index = tl.load(indices + entry, mask=entry < last, other=0)
        total = tl.zeros([ENTRIES], tl.float32)
        for column in range(0, width, COLUMNS):
            at = column + tl.arange(0, COLUMNS)
            here = (entry < last)[:, None] & (at < width)[None, :]
            part = tl.load(rows + index[:, None] * width + at[None, :], mask=here, other=0)
            own = tl.load(given + owner * width + at, mask=at < width, other=0)
            total += tl.sum(part.to(tl.float32) * own.to(tl.float32)[None, :], axis=1)
        tl.store(out + entry, total, mask=entry < last)


def dots(begins: Tensor, indices: Tensor, given: Tensor, rows: Tensor) -> Tensor:
    """For each entry the product of its owner's row of ``given`` and of its row, float32 ``(n,)``.

    Args:
        given: ``(owners, d)``, contiguous; the others are as for :func:`sums`.
    """
    out = torch.empty(len(indices), device=rows.device)
    width = rows.shape[1]
    entries, columns = DOTTED
    columns = min(columns, triton.next_power_of_2(width))
    with torch.cuda.device_of(rows):
        _dots[(len(begins) - 1,)](begins, indices, given, rows, out, width, entries, columns)
    return out


@triton.jit
def _along(gradient, weights, width, COLUMNS: tl.constexpr):
    at = tl.arange(0, COLUMNS)
    places = tl.program_id(0).to(tl.int64) * width + at
    g = tl.load(gradient + places, mask=at < width, other=0)
    w = tl.load(weights + places, mask=at < width, other=0)
    tl.store(gradient + places, g - tl.sum(g * w) * w, mask=at < width)


def project_(gradient: Tensor, weights: Tensor) -> None:
    """Remove from every row of a gradient ``(n, d)`` the part along that of ``weights``."""
    n, width = weights.shape
    with torch.cuda.device_of(weights):
        _along[(n,)](gradient, weights, width, triton.next_power_of_2(width), num_warps=8)


@triton.jit
def _normalise(weights, least, width, COLUMNS: tl.constexpr):
    at = tl.arange(0, COLUMNS)
    places = tl.program_id(0).to(tl.int64) * width + at
    w = tl.load(weights + places, mask=at < width, other=0)
    norm = tl.sqrt(tl.sum(w * w))
    tl.store(weights + places, w / tl.maximum(norm, least), mask=at < width)


def normalise_(weights: Tensor, least: float) -> None:
    """Divide every row ``(n, d)`` by its norm, or by ``least`` if that is more."""
    n, width = weights.shape
    with torch.cuda.device_of(weights):
        _normalise[(n,)](weights, least, width, triton.next_power_of_2(width), num_warps=8)


@triton.jit
def _adam(
    weights, gradient, mean, square, corrections, lr, rest, beta2, rest2, eps, least, width,
    UNIT: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, COLUMNS)
    places = tl.program_id(0).to(tl.int64) * width + at
    inside = at < width
    w = tl.load(weights + places, mask=inside, other=0)
    g = tl.load(gradient + places, mask=inside, other=0)
    if UNIT:
        g -= tl.sum(g * w) * w
    m = tl.load(mean + places, mask=inside, other=0)
    m += rest * (g - m)
    v = beta2 * tl.load(square + places, mask=inside, other=0) + rest2 * g * g
    w -= lr / tl.load(corrections) * m / (tl.sqrt(v) / tl.load(corrections + 1) + eps)
    if UNIT:
        w /= tl.maximum(tl.sqrt(tl.sum(w * w)), least)
    tl.store(mean + places, m, mask=inside)
    tl.store(square + places, v, mask=inside)
    tl.store(weights + places, w, mask=inside)


def adam_(
    weights: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    corrections: Tensor,
    rates: tuple[float, float, float, float],
    unit: float | None,
) -> None:
    """One step of Adam on a matrix ``(n, d)``, in one pass over it.

    Args:
        corrections: ``1 - beta1^t`` and the root of ``1 - beta2^t``, float32 ``(2,)``.
        rates: the learning rate, both betas, and epsilon.
        unit: where rows have norm 1, the smallest norm: what is along a row is first taken from
            its gradient (see :func:`project_`), and it gets norm 1 afterwards.
    """
    n, width = weights.shape
    lr, beta, beta2, eps = rates
    columns = triton.next_power_of_2(width)
    numbers = (lr, 1 - beta, beta2, 1 - beta2, eps, unit or 0.0)
    given = (weights, gradient, *moments, corrections, *numbers, width)
    with torch.cuda.device_of(weights):
        _adam[(n,)](*given, unit is not None, columns, num_warps=8)
