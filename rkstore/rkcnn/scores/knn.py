"""knn: whether near rows have the same label, or, without labels, how uneven the density is."""

import torch

from rkstore.errors import BadInput
from rkstore.rkcnn.scores.base import Comparison, RowScore

# Distances held at once: 16 MiB.
BLOCK_DISTANCES = 2**22


class KNN(RowScore):
    """Euclidean nearest neighbours inside the subset; a row is not its own neighbour.

    With labels: the mean over rows of the share of the k nearest that have the row's
    label. Without: the variance over rows of ``1 / (mean distance to the k nearest +
    1e-8)``. Which of several equally near rows is taken is left open. Both forms
    after the RkCNN-SAE code.
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

    def of_subset(self, x: torch.Tensor, comparison: Comparison) -> float:
        distances, neighbors = _nearest(x, comparison.k_neighbors)
        if comparison.labels is not None:
            same = comparison.labels[neighbors] == comparison.labels[:, None]
            return float(same.double().mean())
        density = 1 / (distances.double().mean(dim=1) + 1e-8)
        return float(density.var(correction=0))


def _nearest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and row numbers, ``(n, k)`` each, of the k rows nearest to each row ``(n, m)``."""
    step = max(1, BLOCK_DISTANCES // len(x))
    distances, neighbors = [], []
    for start in range(0, len(x), step):
        rows = torch.arange(start, min(start + step, len(x)), device=x.device)
        # By differences: expanding the square would give equal rows a distance.
        block = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist")
        block[rows - start, rows] = torch.inf
        nearest = block.topk(k, largest=False)
        distances.append(nearest.values)
        neighbors.append(nearest.indices)
    return torch.cat(distances), torch.cat(neighbors)
