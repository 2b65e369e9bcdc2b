"""What latents do to the logits, as SAEDashboard and circuit-tracer show it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from rkstore.evaluation.effects import Effects, Ranked, joined, strongest
from rkstore.evaluation.samples.samples import Floats
from rkstore.store.readable import Readable

# SAEDashboard's defaults: rows of its table of logits, and bins of their histogram.
MOST, BINS = 10, 50

# Tokens with their logits; a token that is a part of a character is its bytes.
Told = tuple[list[str | list[int]], list[float]]


@dataclass(frozen=True)
class OfLatent:
    """What one latent does to the logits."""

    raised: Told
    """The largest, falling."""
    lowered: Told
    """The lowest, rising."""
    heights: list[float]
    """A histogram of all tokens, between the lowest and the largest."""
    centres: list[float]
    """The middle of each of its bins."""


@dataclass(frozen=True, eq=False)
class Logits:
    """The logits of each latent with norm 1 in the residual stream, the scale of the final norm
    left out. Their mean over all tokens changes no prediction, and is taken away.
    """

    store: Readable
    raised: Ranked
    lowered: Ranked
    heights: Floats
    """``(d_sae, BINS)``."""
    writes: NDArray[np.bool_]
    """Whether a latent writes anything, ``(d_sae,)``."""

    @classmethod
    def of(cls, effects: Effects, store: Readable) -> "Logits":
        """Those of all latents; shows a bar."""
        raised, lowered, heights = [], [], []
        for _, raw in effects.blocks():
            raw -= raw.mean(dim=1, keepdim=True)
            raised.append(strongest(raw, MOST))
            lowered.append(strongest(raw, MOST, -1))
            heights.append(torch.stack([row.histc(BINS) for row in raw]).numpy())
        writes = effects.directions.any(dim=1).numpy()
        return cls(store, joined(raised), joined(lowered), np.concatenate(heights), writes)

    def of_latent(self, latent: int) -> OfLatent | None:
        """Those of one latent; None if it writes nothing."""
        if not self.writes[latent]:
            return None
        edges = np.linspace(self.lowered[1][latent, 0], self.raised[1][latent, 0], BINS + 1)
        return OfLatent(
            self._told(self.raised, latent),
            self._told(self.lowered, latent),
            self.heights[latent].tolist(),
            ((edges[:-1] + edges[1:]) / 2).tolist(),
        )

    def _told(self, ranked: Ranked, latent: int) -> Told:
        tokens, values = (part[latent].tolist() for part in ranked)
        return [self._pieces[token] for token in tokens], values

    @cached_property
    def _pieces(self) -> dict[int, str | list[int]]:
        ids = np.unique(np.concatenate([self.raised[0], self.lowered[0]])).tolist()
        return dict(zip(ids, self.store.words.pieces(ids), strict=True))
