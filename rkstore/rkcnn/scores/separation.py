"""separation: how far apart classes lie, measured by how far each spreads."""

import torch

from rkstore.errors import BadInput
from rkstore.rkcnn.scores.base import Comparison, RowScore


class Separation(RowScore):
    """Between-class over within-class dispersion of labelled rows,

    ``Σ_c ‖x̄_c - x̄‖ / Σ_i (‖x_i - x̄_c(i)‖² / n_c(i))^½``,

    c over classes, i over rows, ``n_c`` the rows of class c. Lu & Gweon 2025, PeerJ
    Computer Science 11:e2497, as reconstructed; the exact place of ``1/n_c`` could not
    be checked against the paper. A class of one row spreads by nothing, and so adds to
    the numerator only. Undefined where no class spreads at all.
    """

    name = "separation"
    needs_labels = True

    def check(self, comparison: Comparison) -> None:
        super().check(comparison)
        if comparison.classes == comparison.rows:
            raise BadInput(
                f"each of the {comparison.rows} rows compared has a label of its own, and "
                "separation needs classes of several rows: give coarser labels or raise sample_rows"
            )

    def of_subset(self, x: torch.Tensor, comparison: Comparison) -> float:
        labels = comparison.labels
        assert labels is not None  # check() saw to it
        sizes = torch.bincount(labels, minlength=comparison.classes)
        centres = x.new_zeros(comparison.classes, x.shape[1]).index_add_(0, labels, x)
        centres /= sizes[:, None]
        between = (centres - x.mean(dim=0)).norm(dim=1).sum()
        within = ((x - centres[labels]).norm(dim=1) / sizes[labels].sqrt()).sum()
        return float(between / within) if within > 0 else torch.nan
