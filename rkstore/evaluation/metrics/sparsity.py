"""How many latents fire, how strongly, and which of them ever do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from rkstore.evaluation.metrics.base import Doubles, Given, Integers, Metric, Seen, Totals

# Edges of the histogram of firing frequency: log10 of the fraction of tokens.
DENSITY_EDGES = np.arange(-6.0, 0.25, 0.25)

# Windows in which a latent must fire to be alive. Others use from 10 thousand tokens to 10 million,
# and rates at different windows say nothing about each other.
WINDOWS = (10_000, 100_000, 1_000_000, 10_000_000)

# A latent that fires on a smaller fraction of the tokens is ultra-rare.
ULTRA_RARE = 1e-6

NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class MinedActivity:
    """Latents that began as mined directions, beside the others."""

    latents: int
    """Mined ones."""
    mean_active: float | None
    """Mean activation when active of the mined ones, over those that fire."""
    mean_active_others: float | None
    """The same of all others."""


@dataclass(frozen=True)
class SparsityNumbers:
    """Activations are ``|f|``; with a code per site, the largest of them."""

    l1: float
    """Sum of the activations, mean over tokens."""
    mean_active: float | None
    """Mean activation of a latent over the tokens it fires on, mean over the latents that fire."""
    max_active: float
    """The largest activation."""
    dead_at: Mapping[str, int | None]
    """Latents that fired on none of the first 10⁴, …, 10⁷ rows, in the order of the store; None
    where fewer were evaluated."""
    ultra_rare: int | None
    """Latents that fire, but on less than a millionth of the tokens; None with fewer tokens."""
    mined: MinedActivity | None = None
    """Of a dictionary that records which of its latents were mined."""


class Sparsity(Metric):
    """Sums of activations by latent, and the first row that each fired on."""

    name = "sparsity"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        d_sae = given.dictionary.d_sae
        self._sums, self._max = np.zeros(d_sae), 0.0
        self._first = np.full(d_sae, NEVER)

    def add(self, seen: Seen) -> None:
        entries = seen.entries
        if not len(entries.tokens):
            return
        self._sums += seen.by_latent(entries.size).cpu().numpy()
        self._max = max(self._max, entries.size.max().item())
        first = torch.full((seen.f.shape[-1],), NEVER, device=seen.f.device)
        first.scatter_reduce_(0, entries.latents, seen.first + entries.tokens, "amin")
        self._first = np.minimum(self._first, first.cpu().numpy())

    def merge(self, other: Self) -> None:
        self._sums += other._sums
        self._max = max(self._max, other._max)
        self._first = np.minimum(self._first, other._first)

    def result(self, totals: Totals) -> SparsityNumbers:
        n, fired = totals.rows, totals.fired
        rare = int(((fired > 0) & (fired < ULTRA_RARE * n)).sum())
        chosen = np.zeros(len(fired), bool)
        chosen[list(self.given.mined)] = True
        mined = MinedActivity(
            int(chosen.sum()), self._mean_active(chosen, fired), self._mean_active(~chosen, fired)
        )
        return SparsityNumbers(
            l1=float(self._sums.sum() / n),
            mean_active=self._mean_active(np.ones(len(fired), bool), fired),
            max_active=self._max,
            dead_at={
                str(window): int((self._first >= window).sum()) if window <= n else None
                for window in WINDOWS
            },
            ultra_rare=rare if n * ULTRA_RARE > 1 else None,
            mined=mined if self.given.mined else None,
        )

    def _mean_active(self, which: NDArray[np.bool_], fired: Integers) -> float | None:
        """Over the latents chosen that fired; None if none did."""
        which = which & (fired > 0)
        means: Doubles = self._sums[which] / fired[which]
        return float(means.mean()) if len(means) else None


def density_of(fired: Integers, rows: int) -> tuple[int, ...]:
    """Latents that never fired, then those in each bin of ``DENSITY_EDGES``."""
    share = np.log10(fired[fired > 0] / rows).clip(DENSITY_EDGES[0], -1e-9)
    histogram = np.histogram(share, DENSITY_EDGES)[0]
    return int((fired == 0).sum()), *(int(count) for count in histogram)
