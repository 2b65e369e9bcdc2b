"""What the decoders say by themselves: how alike their rows are, and where they write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.evaluation.metrics.base import Doubles, Metric, Seen, Totals, decoder_of
from rkstore.store.statistics import Statistics

# Edges of the histogram of relative decoder norms.
NORM_EDGES = np.arange(11) / 10

# A latent is redundant if another's decoder row has at least this cosine with its own.
ALIKE = 0.9

# Latents compared with all others at a time.
BLOCK = 1024


@dataclass(frozen=True)
class DecoderNumbers:
    """Decoder rows, the written sites side by side."""

    max_cosine: float | None
    """The largest cosine with another latent's row, mean over latents. None of a single latent."""
    redundant: int
    """Latents of which it is at least 0.9."""
    norm: float
    """Norm, mean over latents."""


class Decoders(Metric):
    """Nothing is summed: the numbers are of the weights."""

    name = "decoders"

    def add(self, seen: Seen) -> None:
        """Rows do not matter."""

    def merge(self, other: Self) -> None:
        """Nor do others."""

    def result(self, totals: Totals) -> DecoderNumbers:  # noqa: ARG002
        rows = torch.cat(list(decoder_of(self.given.dictionary).values()), dim=1)
        most = max_cosines(rows).double().cpu()
        return DecoderNumbers(
            max_cosine=most.mean().item() if len(most) > 1 else None,
            redundant=int((most >= ALIKE).sum()),
            norm=rows.norm(dim=1).double().mean().item(),
        )


@torch.no_grad()
def max_cosines(rows: Tensor) -> Tensor:
    """The largest cosine of each row ``(n, d)`` with another, ``(n,)``; -1 where there is none.

    A row of zeros has cosine 0 with every other.
    """
    unit = F.normalize(rows, dim=1)
    most = unit.new_full((len(unit),), -1.0)
    for start in range(0, len(unit), BLOCK):
        # Each pair once: the block with itself and with what comes after it.
        block = slice(start, start + BLOCK)
        cosines = unit[block] @ unit[start:].T
        cosines.fill_diagonal_(-1)
        most[block] = torch.maximum(most[block], cosines.amax(dim=1))
        most[start:] = torch.maximum(most[start:], cosines.amax(dim=0))
    return most


def relative_norms(dictionary: Dictionary, statistics: Mapping[str, Statistics]) -> Doubles:
    """``a / (a + b)`` of each latent, ``(d_sae,)``; nan where it writes to neither site.

    ``a`` and ``b`` are the norms of its decoder rows at the first and at the second written site,
    each divided by the root mean square norm of the site's rows.

    Args:
        statistics: of the rows of exactly two sites.
    """
    norms = np.stack(
        [
            part.double().norm(dim=1).cpu().numpy()
            / (statistics[name].mean_square_norm ** 0.5 or 1.0)
            for name, part in decoder_of(dictionary).items()
        ]
    )
    total = norms.sum(axis=0)
    share: Doubles = np.divide(norms[0], total, out=np.full(len(total), np.nan), where=total > 0)
    return share


def norm_histogram(share: Doubles) -> tuple[int, ...]:
    """Latents in each bin of ``NORM_EDGES``."""
    return tuple(int(count) for count in np.histogram(share[~np.isnan(share)], NORM_EDGES)[0])
