"""What each prefix of a nested dictionary (Matryoshka) reconstructs by itself."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.prefixes import Prefixes, by_activation
from rkstore.dictionaries.rows import Rows
from rkstore.evaluation.metrics.base import Integers, fires, listed

# What is measured of a dictionary whose prefixes were drawn anew for each batch.
OF_DRAWN = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class PrefixEvaluation:
    """What a part of the code reconstructs by itself."""

    share: float
    """Of the latents of each bank, or of those that are on (``--prefix-order``)."""
    l0: float
    """Latents of the part that are on, mean over tokens."""
    fvu: float


class PrefixSums:
    """The errors and the firing of each prefix, summed over rows."""

    def __init__(self, dictionary: Dictionary, prefixes: Prefixes) -> None:
        self.dictionary, self.prefixes = dictionary, prefixes
        self.shares = OF_DRAWN if prefixes.draws else prefixes.shares
        self._errors = np.zeros(len(self.shares))
        self._fired = np.zeros(len(self.shares), np.int64)

    def reconstruct(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Code and reconstruction by all of it; what each prefix does is added to the sums."""
        f = self.dictionary.encode(rows)
        if self.prefixes.whole:
            return f, self.dictionary.restored(listed(f), rows)
        levels = self.prefixes.decodings(self.dictionary, f, rows, self.shares)
        for i, level in enumerate(levels):
            for name, found in level.items():
                self._errors[i] += (found.double() - rows[name].double()).square().sum().item()
        if self.prefixes.order == "activations":
            on = torch.zeros_like(fires(f))
            for i, part in enumerate(by_activation(f, self.shares)):
                on |= fires(part)
                self._fired[i] += int(on.sum())
        return f, levels[-1]

    def merge(self, other: "PrefixSums") -> None:
        """Add the sums over other rows."""
        self._errors += other._errors
        self._fired += other._fired

    def result(self, rows: int, fired: Integers, variation: float) -> tuple[PrefixEvaluation, ...]:
        """The numbers of each prefix; none of a dictionary without them.

        Args:
            fired: tokens that each latent fired on.
            variation: ``Σ‖y - μ‖²`` of all written sites.
        """
        if self.prefixes.whole:
            return ()
        counts = self._fired
        if self.prefixes.order == "latents":
            ends = np.cumsum([bank.latents for bank, _ in self.dictionary.banks])[:-1]
            banks = np.split(fired, ends)
            counts = np.array(
                [
                    sum(int(bank[: round(len(bank) * share)].sum()) for bank in banks)
                    for share in self.shares
                ]
            )
        return tuple(
            PrefixEvaluation(share, float(on / rows), float(error / variation))
            for share, on, error in zip(self.shares, counts, self._errors, strict=True)
        )
