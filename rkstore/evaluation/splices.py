"""What takes the place of a model's rows: a dictionary's reconstruction, zeros, or their mean.

A splice is called with each site that it needs, in the order of computation, and the rows there,
``(n, width)``; it returns the rows to go on with, or None for those that are there. Rows that are
not ``chosen`` stay the model's own in every splice.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows, split

Splice = Callable[[str, Tensor], Tensor | None]


class Put:
    """Given rows at each site: zeros, the mean, or a reconstruction that was made before.

    Args:
        values: by site, ``(n, width)``, or ``(width,)`` for the same at every row.
        chosen: bool ``(n,)``.
    """

    def __init__(self, values: Mapping[str, Tensor], chosen: Tensor) -> None:
        self.values, self.chosen = values, chosen

    def __call__(self, site: str, rows: Tensor) -> Tensor | None:
        """See :data:`Splice`."""
        if site not in self.values:
            return None
        return torch.where(self.chosen.unsqueeze(1), self.values[site], rows)


class Add:
    """A vector ``(width,)``, added to the rows of one site."""

    def __init__(self, site: str, vector: Tensor, chosen: Tensor) -> None:
        self.site, self.vector, self.chosen = site, vector, chosen

    def __call__(self, site: str, rows: Tensor) -> Tensor | None:
        """See :data:`Splice`."""
        if site != self.site:
            return None
        return torch.where(self.chosen.unsqueeze(1), rows + self.vector, rows)


class Live:
    """A dictionary's reconstruction at all of its sites, from rows that the splice has changed.

    The replacement model: what a site receives depends on what was put in before it. Each bank
    encodes once, when a site that it writes is reached.

    Args:
        dictionary: one that :func:`can_be_live`.
        chosen: bool ``(n,)``.
        errors: what is added to each reconstruction, by site (error nodes): with ``y - ŷ`` of the
            clean run the pass reproduces that run.
    """

    def __init__(
        self, dictionary: Dictionary, chosen: Tensor, errors: Mapping[str, Tensor] | None = None
    ) -> None:
        self.dictionary, self.chosen, self.errors = dictionary, chosen, errors
        self._writes = {site.hook_name: site for site in dictionary.wiring.writes}
        self._rows: dict[str, Tensor] = {}
        self._codes: dict[int, Tensor] = {}

    def __call__(self, site: str, rows: Tensor) -> Tensor | None:
        """See :data:`Splice`."""
        self._rows[site] = rows
        if site not in self._writes:
            return None
        found = self._reconstructed(site)
        if self.errors is not None:
            found = found + self.errors[site]
        return torch.where(self.chosen.unsqueeze(1), found, rows)

    def _reconstructed(self, hook_name: str) -> Tensor:
        site = self._writes[hook_name]
        total = self.dictionary.bias((site,))
        for i, (bank, weights) in enumerate(self.dictionary.banks):
            if site not in bank.writes:
                continue
            columns = dict(split(weights.W_dec, bank.writes))[site]
            total = total + F.linear(self._code(i), columns.T)
            if self.dictionary.wiring.skip:
                columns = dict(split(self.dictionary.skip(i).T, bank.writes))[site]
                total = total + F.linear(self.dictionary.read(self._rows, bank), columns.T)
        return total

    def _code(self, i: int) -> Tensor:
        """The code of one bank. Its select may be that of all banks, which then see zeros."""
        if i not in self._codes:
            bank, weights = self.dictionary.banks[i]
            before = sum(other.latents for other in self.dictionary.wiring.banks[:i])
            own = slice(before, before + bank.latents)
            read = self.dictionary.read(self._rows, bank)
            pre = read.new_zeros(len(read), self.dictionary.d_sae)
            pre[:, own] = F.linear(read, weights.W_enc.T, weights.b_enc)
            self._codes[i] = self.dictionary.code(pre)[:, own]
        return self._codes[i]


def can_be_live(dictionary: Dictionary, order: Sequence[str]) -> bool:
    """Whether a dictionary can read what a model computes after its own splices.

    Every bank must have read all of its sites before the first that it writes, and its code must
    not depend on banks that read later: that of a TopK over all layers does. A crosscoder reads
    sites behind those that it writes.

    Args:
        order: the sites of the model in the order of computation. Those of another are not in it:
            it computes by itself, whatever is put into this one.
    """
    wiring, rules = dictionary.wiring, [pool.rule for pool in dictionary.pools]
    if wiring.views > 1 or dictionary.row_norm != "none":
        return False
    if len(wiring.banks) > 1 and wiring.together and not all(rule.by_latent for rule in rules):
        return False
    place = {name: i for i, name in enumerate(order)}
    if any(site.hook_name not in place for site in wiring.sites):
        return False
    return all(
        max(place[site.hook_name] for site in bank.reads)
        <= min(place[site.hook_name] for site in bank.writes)
        for bank in wiring.banks
    )


def errors_of(rows: Rows, decoded: Rows) -> dict[str, Tensor]:
    """``y - ŷ`` by written site."""
    return {name: rows[name] - found for name, found in decoded.items()}
