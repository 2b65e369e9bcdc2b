"""knn: whether near rows have the same label, or, without labels, how uneven the density is."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.scores.base import Comparison, RowScore
from rkstore.rkcnn.threads import one_item_a_core

# Distances held at once by each thread: 4 MB.
BLOCK_DISTANCES = 2**20

# Rows in a group of which only the nearest is looked at first, and how many rows more than
# the k nearest have their distance computed twice.
GROUP_ROWS, MARGIN = 16, 3

# Neighbours that are nearer than this part of the median distance are copies of a row.
COPY = 1e-3

# Squared distances that differ by less than this part of themselves count as equal.
TIE = 1e-4


class KNN(RowScore):
    """Euclidean nearest neighbours inside the subset; a row is not its own neighbour.

    With labels: the mean over rows of the share of the k nearest that have the row's
    label. Without: the variance over rows of ``1 / (mean distance to the k nearest +
    1e-8)``, without the rows whose neighbours are copies of them (nearer than a thousandth of the
    median): as many copies of one point as there are BOS rows would decide the score alone, the
    same for every subset. Which of several equally near rows is taken is left open. Both forms
    after the RkCNN-SAE code.

    If only q of n rows are asked for their neighbours among all n, the score is an
    estimate. Its standard error is that of a mean or of a variance over q rows drawn
    without replacement: with s the standard deviation of the share over rows,
    ``s · (1/q - 1/n)^½``, which is less than ``1 / (2 √q)``, or, with μ4 the fourth
    central moment of the density and σ² its variance, about ``((μ4 - σ⁴) (1/q - 1/n))^½``.
    All subsets are asked by the same rows, so they are ranked with a smaller error.
    """

    name = "knn"

    def check(self, comparison: Comparison) -> None:
        super().check(comparison)
        if comparison.rows <= comparison.k_neighbors:
            raise BadInput(
                f"knn with k_neighbors={comparison.k_neighbors} has {comparison.rows} rows to "
                f"compare and needs at least {comparison.k_neighbors + 1}: "
                "give more rows, raise sample_rows or lower k_neighbors"
            )

    def of_subsets(self, x: torch.Tensor, subsets: torch.Tensor, comparison: Comparison) -> Doubles:
        # A row of the transpose is contiguous, which makes the choice of dimensions cheap.
        columns = x.T.contiguous()

        def score(subset: torch.Tensor) -> float:
            return _score(columns[subset].T.contiguous(), comparison)

        scores = one_item_a_core(score, subsets, x.device)
        shown = tqdm(scores, total=len(subsets), desc="probe", unit="subset", disable=None)
        return np.fromiter(shown, np.float64, len(subsets))


def _score(x: torch.Tensor, comparison: Comparison) -> float:
    """Score of one subset, ``x`` its activations ``(rows, m)``."""
    asking = comparison.asking
    if asking is None:
        asking = torch.arange(len(x), device=x.device)
    distances, neighbors = nearest(x, asking, comparison.k_neighbors)
    if comparison.labels is not None:
        same = comparison.labels[neighbors] == comparison.labels[asking, None]
        return float(same.double().mean())
    mean = distances.mean(dim=1)
    apart = mean[mean > COPY * mean.median()]
    if not len(apart):
        return float("nan")
    return float((1 / (apart + 1e-8)).var(correction=0))


def nearest(x: torch.Tensor, asking: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows of ``x``, ``(n, m)``, that are nearest to each row asking, ``(q,)``.

    Candidates are found by ``‖b‖² - 2 a·b``, a matrix product. It may give equal rows a
    distance, so the distance of a candidate is computed again from differences. Where the
    product's rounding could have hidden a nearer row, all rows are compared by differences.

    Returns:
        Distances, float64 ``(q, k)``, and row numbers, int64 ``(q, k)``.
    """
    # By a power of two, which loses nothing: no square over- or underflows.
    exponent = torch.frexp(x.abs().max()).exponent
    x = torch.ldexp(x, -exponent)
    found = [_nearest_of_block(x, rows, product, k) for rows, product in _products(x, asking, k)]
    squares, neighbors = (torch.cat(parts) for parts in zip(*found, strict=True))
    return torch.ldexp(squares.double().sqrt_(), exponent), neighbors


def _products(
    x: torch.Tensor, asking: torch.Tensor, k: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Blocks of rows asking, ``(b,)``, and ``‖b‖² - 2 a·b`` from each of them to all rows.

    The products have shape ``(g, b, groups)``: entry ``(i, :, j)`` belongs to row
    ``i * groups + j``, and is infinite if there is no such row or it is the one asking. Each
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
    """Row numbers ``(b, count)`` of the least of ``(g, b, groups)``, and the greatest of those.

    The least ``count`` lie in the ``count`` groups with the least minima.
    """
    size, _, groups = product.shape
    chosen = product.amin(dim=0).topk(count, largest=False, sorted=False).indices
    members = product.gather(2, chosen.expand(size, -1, -1)).permute(1, 2, 0).flatten(1)
    least = members.topk(count, largest=False)
    rows = chosen.gather(1, least.indices // size) + least.indices % size * groups
    return rows, least.values[:, -1]
