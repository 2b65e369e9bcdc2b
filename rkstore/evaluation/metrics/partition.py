"""Do the latents of one site keep out of the other? Partition integrity of dedicated features.

arXiv 2602.11729, whose programs keep forbidden weights at zero by a mask and log the largest. Here
they do not exist, so what is measured is what they would do, on some rows.
"""

from dataclasses import dataclass
from typing import Self

import torch

from rkstore.evaluation.metrics.base import Given, Metric, Seen, Totals

# Rows of each batch that are tried.
TRIED = 64


@dataclass(frozen=True)
class PartitionNumbers:
    """0 if the partition holds."""

    encoder_max: float
    """The largest change of a pre-activation when the rows of a site that its bank does not read
    are replaced by others."""
    decoder_max: float
    """The largest number that a bank writes to a site that is not its own."""


class Partition(Metric):
    """Largest violations."""

    name = "partition"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._encoder = self._decoder = 0.0

    @classmethod
    def applies(cls, given: Given) -> bool:
        """Banks write what they read, and some of them not every site."""
        wiring = given.dictionary.wiring
        own = all(set(bank.reads) == set(bank.writes) for bank in wiring.banks)
        return own and any(len(bank.reads) < len(wiring.sites) for bank in wiring.banks)

    def add(self, seen: Seen) -> None:
        dictionary, first = seen.dictionary, 0
        sites = [site.hook_name for site in dictionary.wiring.sites]
        rows = {name: seen.rows[name][:TRIED] for name in sites}
        pre = dictionary.pre(rows)
        for bank in dictionary.wiring.banks:
            latents = slice(first, first := first + bank.latents)
            own = {site.hook_name for site in bank.reads}
            if own == rows.keys():
                continue
            others = {name: x if name in own else x.flip(0) + 1 for name, x in rows.items()}
            change = (dictionary.pre(others) - pre)[..., latents].abs()
            alone = torch.zeros_like(pre)
            alone[..., latents] = pre[..., latents]
            (decoded,) = dictionary.decodings(alone, bias=False)
            leaks = [y.abs().max().item() for name, y in decoded.items() if name not in own]
            self._encoder = max(self._encoder, change.max().item())
            self._decoder = max(self._decoder, *leaks)

    def merge(self, other: Self) -> None:
        self._encoder = max(self._encoder, other._encoder)
        self._decoder = max(self._decoder, other._decoder)

    def result(self, totals: Totals) -> PartitionNumbers:  # noqa: ARG002
        return PartitionNumbers(self._encoder, self._decoder)
