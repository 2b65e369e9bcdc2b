"""Exact nearest neighbours by matrix products."""

from collections.abc import Iterator

import torch

# Distances held at once by each thread: 4 MB.
BLOCK_DISTANCES = 2**20

# Rows in a group of which only the nearest is considered first, and how many candidates beyond k
# have their distance recomputed.
GROUP_ROWS, MARGIN = 16, 3

# Squared distances with a relative difference below this count as equal.
TIE = 1e-4


def nearest(x: torch.Tensor, asking: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows of ``x``, ``(n, m)``, to each query row, ``(q,)``.

    Candidates are found by ``‖b‖² - 2 a·b``, a matrix product. It may give equal rows a nonzero
    distance, so the distances of candidates are recomputed from differences. If the product's
    rounding could have hidden a nearer row, all rows are compared by differences.

    Returns:
        Distances, float64 ``(q, k)``, and row numbers, int64 ``(q, k)``.
    """
    # By a power of two, which is exact: no square over- or underflows.
    exponent = torch.frexp(x.abs().max()).exponent
    x = torch.ldexp(x, -exponent)
    found = [_nearest_of_block(x, rows, product, k) for rows, product in _products(x, asking, k)]
    squares, neighbors = (torch.cat(parts) for parts in zip(*found, strict=True))
    return torch.ldexp(squares.double().sqrt_(), exponent), neighbors


def _products(
    x: torch.Tensor, asking: torch.Tensor, k: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Blocks of query rows, ``(b,)``, and ``‖b‖² - 2 a·b`` from each of them to all rows.

    The products have shape ``(g, b, groups)``: entry ``(i, :, j)`` belongs to row
    ``i * groups + j``, and is infinite if there is no such row or it is the query itself. Each
    block overwrites the one before it.
    """
    n, m = x.shape
    size = max(1, min(GROUP_ROWS, n // (2 * (k + MARGIN))))
    groups = -(-n // size)
    right = x.new_zeros(size * groups, m + 1)
    right[:n, :m], right[:n, m] = -2 * x, x.square().sum(dim=1)
    right[n:, m] = torch.inf
    right = right.view(size, groups, m + 1).transpose(1, 2).contiguous()
    left = torch.cat([x, x.new_ones(n, 1)], dim=1)
    step = max(1, BLOCK_DISTANCES // n)
    held = x.new_empty(size * min(step, len(asking)) * groups)
    for start in range(0, len(asking), step):
        rows = asking[start : start + step]
        product = held[: size * len(rows) * groups].view(size, len(rows), groups)
        torch.bmm(left[rows].expand(size, -1, -1), right, out=product)
        here = torch.arange(len(rows), device=x.device)
        product[rows // groups, here, rows % groups] = torch.inf
        yield rows, product


def _nearest_of_block(
    x: torch.Tensor, rows: torch.Tensor, product: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances and numbers, ``(b, k)`` each, of the rows nearest to these ``(b,)``."""
    candidates, beyond = _least(product, min(k + MARGIN, len(x) - 1))
    squares = (x[rows, None] - x[candidates]).square_().sum(dim=2)
    least = squares.topk(k, largest=False)
    kth, neighbors = least.values[:, -1], candidates.gather(1, least.indices)
    # The product is off by no more than γ (8 ‖a‖² + 6 d²), γ as in Higham 2002, (3.4).
    norm, gamma = x[rows].square().sum(dim=1), 8 * (x.shape[1] + 2) * 2**-24
    bound = (beyond + norm) * (1 - gamma) - gamma * norm
    missed = (kth > 0) & (kth > bound * (1 + TIE))
    for i in missed.nonzero().flatten().tolist():
        differences = (x - x[rows[i]]).square_().sum(dim=1)
        differences[rows[i]] = torch.inf
        least.values[i], neighbors[i] = differences.topk(k, largest=False)
    return least.values, neighbors


def _least(product: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers ``(b, count)`` of the smallest of ``(g, b, groups)``, and the largest of those.

    The smallest ``count`` are in the ``count`` groups with the smallest minima.
    """
    size, _, groups = product.shape
    chosen = product.amin(dim=0).topk(count, largest=False, sorted=False).indices
    members = product.gather(2, chosen.expand(size, -1, -1)).permute(1, 2, 0).flatten(1)
    least = members.topk(count, largest=False)
    rows = chosen.gather(1, least.indices // size) + least.indices % size * groups
    return rows, least.values[:, -1]
