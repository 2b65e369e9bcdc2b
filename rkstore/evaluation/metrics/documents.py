"""Intervals of the means over rows, by documents: rows of one document are not independent.

A mean over rows is a ratio of sums over documents, ``R = Σ A_d / Σ B_d``. Its variance is the
cluster-robust one, by linearisation (Cochran 1977, "Sampling Techniques", §6; Cameron & Miller
2015, "A Practitioner's Guide to Cluster-Robust Inference")::

    Var(R) = D / (D - 1) · Σ_d (A_d - R B_d)² / (Σ B_d)²

and the interval is ``R ± t(0.975, D - 1) √Var(R)``. Nothing is drawn. For the FVU ``B_d`` is
``Σ‖y - μ‖²``; that μ is itself estimated changes nothing to first order, because μ minimises it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rkstore.errors import BadInput
from rkstore.evaluation.metrics.base import Doubles, Given, Metric, Seen, Totals
from rkstore.store.statistics import Statistics

# Documents are counted in so many groups, by their number modulo this, so that the sums of a site
# of width d take 1,024 · d numbers however many documents there are. A group of documents is as
# good a cluster as one document, and a thousand clusters are plenty.
GROUPS = 1024

# With fewer clusters the interval covers less than it says.
LEAST_DOCUMENTS = 20

LEVEL = 0.95

SUMS = ("rows", "errors", "cosines", "ratios", "with_norm", "fired")

Ends = tuple[float, float]


@dataclass(frozen=True)
class IntervalNumbers:
    """Ends of the 95 % intervals, with documents as clusters."""

    documents: int
    """Clusters: documents, or where there are more than a thousand, groups of them."""
    fvu: Ends | None
    mse: Ends | None
    cosine: Ends | None
    norm_ratio: Ends | None
    l0: Ends | None


class Intervals(Metric):
    """The sums behind each mean, by document."""

    name = "intervals"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._sums = {name: np.zeros(GROUPS) for name in SUMS}
        writes = given.dictionary.wiring.writes
        self._of_site = {site.hook_name: np.zeros((GROUPS, site.width)) for site in writes}
        self._squares = {site.hook_name: np.zeros(GROUPS) for site in writes}
        self._known = True

    def add(self, seen: Seen) -> None:
        if seen.documents is None:
            self._known = False
            return
        groups = torch.from_numpy(seen.documents.astype(np.int64) % GROUPS).to(seen.f.device)
        rows, norms = seen.together, seen.together.norms
        of_rows = torch.bincount(seen.entries.tokens, minlength=seen.count)
        each = (torch.ones_like(norms), rows.errors, rows.cosines, rows.ratios, norms > 0, of_rows)
        for name, values in zip(SUMS, each, strict=True):
            self._sums[name] += _by_group(groups, values)
        for name, y in seen.written.items():
            sums = y.new_zeros(GROUPS, y.shape[1]).index_add_(0, groups, y)
            self._of_site[name] += sums.cpu().numpy()
            self._squares[name] += _by_group(groups, seen.compared[name].norms.square())

    def merge(self, other: Self) -> None:
        for mine, more in (
            (self._sums, other._sums),
            (self._of_site, other._of_site),
            (self._squares, other._squares),
        ):
            for name, sums in more.items():
                mine[name] += sums
        self._known &= other._known

    def result(self, totals: Totals) -> IntervalNumbers | None:
        """The intervals, None for each if there are too few documents; None if the documents are
        not known."""
        if not self._known:
            return None
        there = self._sums["rows"] > 0
        of = {name: sums[there] for name, sums in self._sums.items()}
        pairs = {
            "fvu": self.errors(totals.statistics),
            "mse": (of["errors"], of["rows"]),
            "cosine": (of["cosines"], of["with_norm"]),
            "norm_ratio": (of["ratios"], of["with_norm"]),
            "l0": (of["fired"], of["rows"]),
        }
        documents = int(there.sum())
        enough = documents >= LEAST_DOCUMENTS
        return IntervalNumbers(
            documents, **{k: interval(*pair) if enough else None for k, pair in pairs.items()}
        )

    def errors(self, statistics: Mapping[str, Statistics]) -> tuple[Doubles, Doubles]:
        """``Σ‖y - ŷ‖²`` and ``Σ‖y - μ‖²`` of each cluster; sums of none if they are not known.

        Two dictionaries of the same rows and sites have the same clusters in the same order, so
        that their differences are paired.

        Args:
            statistics: of the rows of each written site.
        """
        there = (self._sums["rows"] > 0) & self._known
        return self._sums["errors"][there], self._variation(statistics)[there]

    def _variation(self, statistics: Mapping[str, Statistics]) -> Doubles:
        """``Σ‖y - μ‖²`` of the rows of each group."""
        found = np.zeros(GROUPS)
        for name, sums in self._of_site.items():
            mean = statistics[name].mean
            along, rows = sums @ mean, self._sums["rows"]
            found += self._squares[name] - 2 * along + rows * (mean @ mean)
        return found


def interval(a: Doubles, b: Doubles) -> Ends:
    """The 95 % interval of ``Σ a / Σ b``, with a number of each for every cluster ``(D,)``.

    Raises:
        BadInput: there are fewer than ``LEAST_DOCUMENTS`` clusters.
    """
    from scipy.stats import t

    count = len(a)
    if count < LEAST_DOCUMENTS:
        raise BadInput(
            f"{count} documents are too few for an interval: evaluate rows of at least "
            f"{LEAST_DOCUMENTS}"
        )
    ratio = a.sum() / b.sum()
    deviations = (a - ratio * b) / b.sum()
    error = (count / (count - 1) * np.square(deviations).sum()) ** 0.5
    reach = t.ppf((1 + LEVEL) / 2, count - 1) * error
    return float(ratio - reach), float(ratio + reach)


def check_documents(found: Mapping[str, IntervalNumbers | None]) -> None:
    """Raise BadInput unless every dictionary, by name, has intervals."""
    for name, intervals in found.items():
        if intervals is None or intervals.documents < LEAST_DOCUMENTS:
            count = 0 if intervals is None else intervals.documents
            raise BadInput(
                f"the rows that {name} is evaluated on are of {count} documents, too few for an "
                f"interval: use a store with {LEAST_DOCUMENTS} in its held-out rows, or leave out "
                "--intervals"
            )


def _by_group(groups: Tensor, values: Tensor) -> Doubles:
    sums: Doubles = torch.bincount(groups, values.double(), minlength=GROUPS).cpu().numpy()
    return sums
