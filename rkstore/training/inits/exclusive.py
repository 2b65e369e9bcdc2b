"""Rows for latents of one site alone, and for those that several share, as in a dfc.

A linear map from the other sites predicts what sites have in common. With rows themselves the
shared latents, of which there are more, would begin with most of the exclusive features and keep
them. On planted pairs (``tests/planted``) these rows find most of those, and plain rows few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.store.sites import Site

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rkstore.training.inits.base import Start

Sites = tuple[Site, ...]

# Tokens that a map is computed from, and those of exclusive latents chosen among, at least two a
# latent: enough for sites of some thousand dimensions.
ROWS = 8192

# Of the mean variance, added to each dimension that predicts: some may be constant.
RIDGE = 1e-4


def beside(bank: Bank, wiring: Wiring) -> Sites:
    """The sites that other latents read and write together with all of this bank's."""
    found = [b for b in _tied(wiring) if {*bank.reads} < {*b.reads}] if _ties(bank) else []
    sites = dict.fromkeys(site for b in found for site in b.reads)
    return tuple(site for site in sites if site not in bank.reads)


def apart(bank: Bank, wiring: Wiring) -> tuple[Sites, ...]:
    """Those of the sites of this bank that other latents have for themselves."""
    if not _ties(bank):
        return ()
    return tuple(b.reads for b in _tied(wiring) if {*b.reads} < {*bank.reads})


def _ties(bank: Bank) -> bool:
    return bank.reads == bank.writes


def _tied(wiring: Wiring) -> list[Bank]:
    return [bank for bank in wiring.banks if _ties(bank)]


def alone(start: Start, generator: torch.Generator) -> Tensor:
    """Rows ``(latents, d_in)`` without what the sites beside predict of them.

    What is left of most tokens is noise, so a token is drawn with a probability proportional to the
    squared norm of what is left of it; the mean is added back. Fewer, if there are fewer tokens.
    """
    import torch

    rows = start.reading.sample(max(ROWS, 2 * start.bank.latents))
    own, others = (start.side_by_side(rows, s).double() for s in (start.bank.reads, start.beside))
    mean = own.mean(dim=0)
    left = own - mean - (others - others.mean(dim=0)) @ predictor(others, own)
    # None is impossible, so that there are enough.
    weight = left.square().sum(dim=1).float() + torch.finfo(torch.float32).tiny
    count = min(start.bank.latents, len(left))
    return (left[torch.multinomial(weight, count, generator=generator)] + mean).float()


def common(start: Start, x: Tensor) -> Tensor:
    """Rows ``x (n, d_in)``, of the sites that are apart only what the others predict of them."""
    from rkstore.dictionaries.rows import split

    rows = start.reading.sample(ROWS)
    given = {site.hook_name: part.double() for site, part in split(x, start.bank.reads)}
    found = dict(given)
    for sites in start.apart:
        rest = tuple(site for site in start.bank.reads if site not in sites)
        own, others = (start.side_by_side(rows, s).double() for s in (sites, rest))
        deviations = start.side_by_side(given, rest) - others.mean(dim=0)
        predicted = own.mean(dim=0) + deviations @ predictor(others, own)
        found |= {site.hook_name: part for site, part in split(predicted, sites)}
    return start.side_by_side(found, start.bank.reads).float()


def predictor(x: Tensor, y: Tensor) -> Tensor:
    """The matrix ``(d_x, d_y)`` with which deviations of ``x`` best predict those of ``y``.

    Ridge regression over rows ``(n, d)`` float64.
    """
    import torch

    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    squares = x.T @ x
    ridge = (RIDGE * squares.diagonal().mean() + 1e-30) * torch.eye(
        len(squares), dtype=squares.dtype
    )
    found: Tensor = torch.linalg.solve(squares + ridge, x.T @ y)
    return found
