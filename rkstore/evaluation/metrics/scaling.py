"""Latent scaling: is a latent that one of two sites writes really absent from the other?

Minder et al. (2025), arXiv 2504.02922: an L1 penalty makes latents of both models look like latents
of one. For a latent j with decoder row ``d_j`` at its own site, and a target ``t`` of site m,

    β_j^m = argmin_β Σ_n ‖β f_nj d_j - t_n^m‖² = d_j · Σ_n f_nj t_n^m / (‖d_j‖² Σ_n f_nj²)

in closed form. ν is β of the other site over β of its own. Two targets: the error that is left
without the latent, ``y - ŷ + f_j d_j^m`` (a ν^ε far from 0: the other site has the direction, but
its decoder row was shrunk to nothing), and the reconstruction ``ŷ`` (a ν^r far from 0: other
latents write it there).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from rkstore.evaluation.metrics.base import (
    Doubles,
    Given,
    Metric,
    Seen,
    Totals,
    decoder_of,
)
from rkstore.evaluation.metrics.decoders import relative_norms

# A latent belongs to a site if at least this share of its decoder norm is there.
OWN = 0.9

# One of which both ratios are below these is specific to its site.
MOST_ERROR, MOST_RECONSTRUCTION = 0.2, 0.5

TARGETS = ("error", "reconstruction")


@dataclass(frozen=True)
class OwnLatents:
    """The latents that belong to one site by their decoder norms, and that fired."""

    latents: int
    error: float | None
    """Median of ν^ε."""
    reconstruction: float | None
    """Median of ν^r."""
    specific: int
    """Latents with ν^ε below 0.2 and ν^r below 0.5."""


@dataclass(frozen=True)
class ScalingNumbers:
    """By site, those that it alone seems to have."""

    sites: Mapping[str, OwnLatents]


class Scaling(Metric):
    """Sums of codes times errors and reconstructions, projected on decoder rows."""

    name = "scaling"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.decoder = {k: rows.double() for k, rows in decoder_of(given.dictionary).items()}
        d_sae = given.dictionary.d_sae
        # [target, own site, site of the target, latent]
        self._along = np.zeros((len(TARGETS), 2, 2, d_sae))
        self._square = np.zeros((2, d_sae))

    @classmethod
    def applies(cls, given: Given) -> bool:
        """Two sites of one width are written, by latents that may write both."""
        wiring = given.dictionary.wiring
        widths = {site.width for site in wiring.writes}
        both = any(len(bank.writes) > 1 and bank.reads == bank.writes for bank in wiring.banks)
        plain = given.dictionary.row_norm == "none"
        return both and plain and len(wiring.writes) == 2 and len(widths) == 1

    def add(self, seen: Seen) -> None:
        several = seen.f.dim() > 2
        for m, name in enumerate(self.decoder):
            view = m if several else 0
            self._square[m] += seen.by_latent(seen.values(view).square()).cpu().numpy()
            for target, rows in enumerate((seen.errors[name], seen.found[name])):
                products = seen.products(rows, view)
                for own, d in enumerate(self.decoder.values()):
                    self._along[target, own, m] += (products * d).sum(dim=1).cpu().numpy()

    def merge(self, other: Self) -> None:
        self._along += other._along
        self._square += other._square

    def result(self, totals: Totals) -> ScalingNumbers:
        share = relative_norms(self.given.dictionary, totals.statistics)
        names = list(self.decoder)
        with np.errstate(invalid="ignore"):
            belongs = [share >= OWN, share <= 1 - OWN]
        found = {}
        for own, name in enumerate(names):
            which = belongs[own] & (self._square > 0).all(axis=0)
            found[name] = _summary(*(self._ratios(target, own)[which] for target in range(2)))
        return ScalingNumbers(found)

    def _ratios(self, target: int, own: int) -> Doubles:
        """ν of every latent, as if it belonged to that site, ``(d_sae,)``."""
        rows = [d.cpu().numpy() for d in self.decoder.values()]
        along = self._along[target, own].copy()
        if TARGETS[target] == "error":  # with what the latent itself writes
            along += np.stack([(rows[own] * d).sum(axis=1) for d in rows]) * self._square
        beta = np.divide(along, self._square, out=np.zeros_like(along), where=self._square > 0)
        ratio: Doubles = np.divide(
            beta[1 - own], beta[own], out=np.full(len(beta[own]), np.nan), where=beta[own] != 0
        )
        return ratio


def _summary(error: Doubles, reconstruction: Doubles) -> OwnLatents:
    if not len(error):
        return OwnLatents(0, None, None, 0)
    specific = (error < MOST_ERROR) & (reconstruction < MOST_RECONSTRUCTION)
    return OwnLatents(
        len(error),
        float(np.nanmedian(error)),
        float(np.nanmedian(reconstruction)),
        int(specific.sum()),
    )
