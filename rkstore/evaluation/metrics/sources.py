"""How much of each written site is explained by each bank: by the layer where a latent reads.

With ``ŷ = Σ_s c_s + b``, where ``c_s`` is what bank s writes, the explained variance of a site is a
sum of shares, exactly::

    1 - Σ‖r‖² / V = Σ_s share_s - N ‖r̄‖² / V        share_s = Σ_n ⟨c_s - c̄_s, y - ȳ + r - r̄⟩ / V

with ``r = y - ŷ``, bars for means over rows and ``V = Σ‖y - ȳ‖²``. A share is the mean of what the
bank explains by itself and of what is lost without it, both with its mean kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from rkstore.evaluation.metrics.base import Doubles, Given, Metric, Seen, Totals


@dataclass(frozen=True)
class SourceNumbers:
    """The explained variance of the sites that several banks write."""

    explained: Mapping[str, Mapping[str, float]]
    """By written site, and by what the bank reads: its share."""
    offset: Mapping[str, float]
    """``N ‖r̄‖² / V`` of each site: what a constant error takes away."""


class Sources(Metric):
    """Sums of codes times rows, projected on decoder rows, bank by bank."""

    name = "sources"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        wiring = given.dictionary.wiring
        self._along = {
            (i, site.hook_name): 0.0 for i, bank in enumerate(wiring.banks) for site in bank.writes
        }
        self._codes = np.zeros((wiring.views, wiring.latents))
        self._errors = {site.hook_name: np.zeros(site.width) for site in wiring.writes}

    @classmethod
    def applies(cls, given: Given) -> bool:
        """Some site is written by several banks, and by nothing else."""
        wiring = given.dictionary.wiring
        written = [site for bank in wiring.banks for site in bank.writes]
        plain = given.dictionary.row_norm == "none" and not wiring.skip and wiring.views == 1
        return plain and len(written) > len(set(written))

    def add(self, seen: Seen) -> None:
        self._codes[0] += seen.by_latent(seen.values()).cpu().numpy()
        for name, error in seen.errors.items():
            products = seen.products(seen.written[name] + error)
            self._errors[name] += error.sum(dim=0).cpu().numpy()
            for i, rows, W_dec in self._decoders(name):
                self._along[i, name] += (products[rows] * W_dec).sum().item()

    def _decoders(self, name: str) -> list[tuple[int, slice, torch.Tensor]]:
        """Each bank that writes a site: its number, its latents, and its decoder there."""
        found, first = [], 0
        for i, (bank, weights) in enumerate(self.given.dictionary.banks):
            latents = slice(first, first := first + bank.latents)
            widths = [site.width for site in bank.writes]
            parts = torch.split(weights.W_dec.detach(), widths, dim=1)
            for site, part in zip(bank.writes, parts, strict=True):
                if site.hook_name == name:
                    found.append((i, latents, part.double()))
        return found

    def merge(self, other: Self) -> None:
        for key, along in other._along.items():
            self._along[key] += along
        self._codes += other._codes
        for name, errors in other._errors.items():
            self._errors[name] += errors

    def result(self, totals: Totals) -> SourceNumbers:
        explained: dict[str, dict[str, float]] = {}
        offset = {}
        n, banks = totals.rows, self.given.dictionary.wiring.banks
        for name, variation in totals.variation.items():
            error: Doubles = self._errors[name] / n
            centre = totals.statistics[name].mean + error
            shares: dict[str, float] = {}
            for i, latents, W_dec in self._decoders(name):
                mean = self._codes[0, latents] @ W_dec.cpu().numpy()
                reads = ",".join(site.hook_name for site in banks[i].reads)
                along = self._along[i, name] - float(mean @ centre)
                shares[reads] = shares.get(reads, 0.0) + along / variation
            explained[name] = shares
            offset[name] = float(n * (error @ error) / variation)
        return SourceNumbers(explained, offset)
