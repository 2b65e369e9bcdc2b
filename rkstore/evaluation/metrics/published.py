"""Numbers of published papers and programs, by their own formulas, to compare with their tables.

All are of the written sites side by side, with ``r = y - ŷ`` and ``d`` the dimensions. None of them
is the explained variance of :class:`rkstore.evaluation.measure.Evaluation`; each says why.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from rkstore.evaluation.metrics.base import Doubles, Given, Metric, Seen, Totals
from rkstore.evaluation.metrics.compared import squares


@dataclass(frozen=True)
class PublishedNumbers:
    """Each under the name of its formula."""

    mse_per_dimension: float
    """``Σ‖r‖² / (N d)``: RkCNN_SAE, matryoshka."""
    ev_residual_variance: float
    """``1 - Σ_d Var(r_d) / Σ_d Var(y_d)``: ``frac_variance_explained`` of dictionary_learning. A
    constant error costs nothing."""
    ev_mean_of_ratios: float
    """``1 - mean_d(Var(r_d) / Var(y_d))``, over the dimensions that vary: trainers of cross-layer
    transcoders. The smallest dimensions count as much as the largest."""
    ev_legacy: float | None
    """``mean_n(1 - ‖r_n‖² / ‖y_n - μ‖²)``: ``explained_variance_legacy`` of SAELens, and the tables
    of SAEBench and Neuronpedia. There μ is the mean of each batch; here that of the ordinary rows
    of the store, which no batch size changes. Rows near the mean decide it."""
    ev_one_mean: float
    """``1 - Var(all r) / Var(all y)``, each with one mean over rows and dimensions: RkCNN_SAE. Too
    large where the dimensions have different means."""
    ev_saelens_6_18: float
    """``1 - E‖r‖² / (S - (S / d)²)`` with ``S = E‖y‖²``: ``explained_variance`` of SAELens 6.18,
    which subtracts the square of the mean square in place of the squared mean."""
    normalised_mse: float
    """``mean_n(‖r_n‖² / ‖y_n‖²)``, over rows with y ≠ 0: OpenAI's sparse_autoencoder."""


class Published(Metric):
    """Sums of residuals by dimension, and of ratios by row."""

    name = "published"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        writes = given.dictionary.wiring.writes
        self._sums = {site.hook_name: np.zeros((2, site.width)) for site in writes}
        self._relative = self._legacy = 0.0
        self._with_norm = 0
        self._means = {
            name: torch.from_numpy(mean) for name, mean in given.means.items() if name in self._sums
        }

    def add(self, seen: Seen) -> None:
        for name, error in seen.errors.items():
            self._sums[name][0] += error.sum(dim=0).cpu().numpy()
            self._sums[name][1] += error.square().sum(dim=0).cpu().numpy()
        rows = seen.together
        long = rows.norms > 0
        self._relative += (rows.errors[long] / rows.norms[long].square()).sum().item()
        self._with_norm += int(long.sum())
        if self._means:
            from_mean = sum(
                squares(y - self._means[name].to(y.device)) for name, y in seen.written.items()
            )
            self._legacy += (rows.errors / from_mean).sum().item()

    def merge(self, other: Self) -> None:
        for name, sums in other._sums.items():
            self._sums[name] += sums
        self._relative += other._relative
        self._legacy += other._legacy
        self._with_norm += other._with_norm

    def result(self, totals: Totals) -> PublishedNumbers:
        n = totals.rows
        of_r = np.concatenate(list(self._sums.values()), axis=1) / n
        of_y = [totals.statistics[name] for name in self._sums]
        mean, var = (
            np.concatenate([getattr(one, key) for one in of_y]) for key in ("mean", "variance")
        )
        var_r = of_r[1] - of_r[0] ** 2
        mse, square = float(of_r[1].sum()), float((var + mean**2).sum())
        varies = var > 0
        return PublishedNumbers(
            mse_per_dimension=mse / len(var),
            ev_residual_variance=1 - float(var_r.sum() / var.sum()),
            ev_mean_of_ratios=1 - float((var_r[varies] / var[varies]).mean()),
            ev_legacy=1 - self._legacy / n if self._means else None,
            ev_one_mean=1 - _variance(of_r[0], of_r[1]) / _variance(mean, var + mean**2),
            ev_saelens_6_18=1 - mse / (square - (square / len(var)) ** 2),
            normalised_mse=self._relative / self._with_norm if self._with_norm else float("nan"),
        )


def _variance(means: Doubles, squares: Doubles) -> float:
    """The variance of all numbers of a matrix, from means and mean squares of its columns."""
    return float(squares.mean() - means.mean() ** 2)
