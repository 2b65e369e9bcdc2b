"""separation: distance of the classes relative to the spread within them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.scores.base import Comparison, RowScore
from rkstore.rkcnn.threads import one_item_a_core

if TYPE_CHECKING:
    from torch import Tensor

# Rows whose deviations a thread holds at once: 3 MB for d = 3072.
BLOCK_ROWS = 256


class Separation(RowScore):
    """Between-class over within-class dispersion of labelled rows,

    ``Σ_c ‖x̄_c - x̄‖ / Σ_i (‖x_i - x̄_c(i)‖² / n_c(i))^½``,

    c over classes, i over rows, ``n_c`` the rows of class c. Lu & Gweon 2025, PeerJ
    Computer Science 11:e2497, as reconstructed; the exact place of ``1/n_c`` could not
    be checked against the paper. A class of one row has no spread, and adds only to the numerator.
    Undefined if no class has any spread.

    A dimension's term of a squared distance is the same in every subset, so it is computed once,
    and a subset only sums m of them.
    """

    name = "separation"
    needs_labels = True

    def check(self, comparison: Comparison) -> None:
        super().check(comparison)
        if comparison.classes == comparison.rows:
            raise BadInput(
                f"each of the {comparison.rows} rows compared has its own label, and "
                "separation needs classes of several rows: give coarser labels or raise sample_rows"
            )

    def of_subsets(self, x: "Tensor", subsets: "Tensor", comparison: Comparison) -> Doubles:
        import torch

        labels = comparison.labels
        assert labels is not None  # guaranteed by check()
        sizes = torch.bincount(labels, minlength=comparison.classes)
        centres = _centres(x, labels, sizes)
        mean = (centres.double() * sizes[:, None]).sum(dim=0).div(len(x)).float()

        def apart(block: slice) -> "Tensor":
            return _norms(centres[block] - mean, subsets).sum(dim=1, dtype=torch.float64)

        def spread(block: slice) -> "Tensor":
            own = labels[block]
            norms = _norms(x[block] - centres[own], subsets)
            return norms.div_(sizes[own].sqrt()).sum(dim=1, dtype=torch.float64)

        between, within = (
            torch.stack(list(one_item_a_core(part, _blocks(rows), x.device))).sum(dim=0)
            for part, rows in ((apart, len(centres)), (spread, len(x)))
        )
        scores: Doubles = torch.where(within > 0, between / within, torch.nan).cpu().numpy()
        return scores


def _centres(x: "Tensor", labels: "Tensor", sizes: "Tensor") -> "Tensor":
    """Mean of each class of rows ``(rows, d)``, ``(classes, d)``."""
    import torch

    sums = x.new_zeros(len(sizes), x.shape[1], dtype=torch.float64)
    for block in _blocks(len(x)):
        sums.index_add_(0, labels[block], x[block].double())
    return sums.div_(sizes[:, None]).float()


def _norms(deviations: "Tensor", subsets: "Tensor") -> "Tensor":
    """Norms inside each subset ``(h, m)`` of rows ``(b, d)``, ``(h, b)``."""
    import torch

    squares = deviations.T.contiguous().square_()
    # A bag sums rows of a table: here the squares of the dimensions of a subset.
    return torch.nn.functional.embedding_bag(subsets, squares, mode="sum").sqrt_()


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, rows, BLOCK_ROWS))
