"""knn: agreement of labels among neighbours, or, without labels, unevenness of the density."""

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.scores.base import Comparison, RowScore
from rkstore.rkcnn.spread import spread_rows
from rkstore.rkcnn.subsets import Indices
from rkstore.rkcnn.threads import one_item_a_core
from rkstore.settings import option

if TYPE_CHECKING:
    from torch import Tensor

# Neighbours nearer than this fraction of the median distance are copies of a row.
COPY = 1e-3


class KNN(RowScore):
    """Euclidean nearest neighbours inside the subset; a row is not its own neighbour.

    With labels: the mean over rows of the fraction of the k nearest that have the row's label.
    Without: the variance over rows of ``1 / (mean distance to the k nearest + 1e-8)``, without the
    rows whose neighbours are copies of them (nearer than a thousandth of the median): the many
    copies of one BOS row would otherwise determine the score, the same for every subset. The choice
    among equally near rows is unspecified. Both forms are from the RkCNN-SAE code.

    If only q of n rows are queries among all n, the score is an estimate. Its standard error is
    that of a mean or of a variance over q rows drawn without replacement: with s the standard
    deviation of the fraction over rows, ``s · (1/q - 1/n)^½``, which is less than ``1 / (2 √q)``,
    or, with μ4 the fourth central moment of the density and σ² its variance, about ``((μ4 - σ⁴)
    (1/q - 1/n))^½``. All subsets use the same queries, so their ranking has a smaller error.
    """

    name = "knn"
    k_neighbors: int = option(5, "Neighbours of the knn score.", least=1)
    query_rows: int | None = option(
        None,
        "Query rows of knn, among all of sample_rows; all by default. "
        "Fewer estimate the score, with a standard error that falls with their square root.",
        least=1,
    )

    def asking(self, rows: int, generator: np.random.Generator) -> Indices | None:
        count = self.query_rows
        return None if count is None else spread_rows(rows, count, generator)

    def check(self, comparison: Comparison) -> None:
        super().check(comparison)
        k = self.k_neighbors
        if comparison.rows <= k:
            raise BadInput(
                f"knn with k_neighbors={k} has {comparison.rows} rows to "
                f"compare and needs at least {k + 1}: give more rows, raise sample_rows or lower "
                f"k_neighbors"
            )

    def of_subsets(self, x: "Tensor", subsets: "Tensor", comparison: Comparison) -> Doubles:
        # A row of the transpose is contiguous, which makes selecting dimensions cheap.
        columns = x.T.contiguous()

        def score(subset: "Tensor") -> float:
            return _score(columns[subset].T.contiguous(), comparison, self.k_neighbors)

        scores = one_item_a_core(score, subsets, x.device)
        shown = tqdm(scores, total=len(subsets), desc="probe", unit="subset", disable=None)
        return np.fromiter(shown, np.float64, len(subsets))


def _score(x: "Tensor", comparison: Comparison, k: int) -> float:
    """Score of one subset, ``x`` its activations ``(rows, m)``."""
    import torch

    from rkstore.rkcnn.neighbors import nearest

    asking = comparison.asking
    if asking is None:
        asking = torch.arange(len(x), device=x.device)
    distances, neighbors = nearest(x, asking, k)
    if comparison.labels is not None:
        same = comparison.labels[neighbors] == comparison.labels[asking, None]
        return float(same.double().mean())
    mean = distances.mean(dim=1)
    apart = mean[mean > COPY * mean.median()]
    if not len(apart):
        return float("nan")
    return float((1 / (apart + 1e-8)).var(correction=0))
