"""Activations of the same tokens at several sites, by name or side by side."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rkstore.errors import BadInput
from rkstore.store.sites import Site

# Site → activations (n, width): the same tokens at every site.
Rows = Mapping[str, Tensor]


def side_by_side(rows: Rows, sites: Sequence[Site]) -> Tensor:
    """Activations of some sites as one matrix, ``(..., Σ width)``."""
    parts = [rows[site.hook_name] for site in sites]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def split(x: Tensor, sites: Sequence[Site]) -> list[tuple[Site, Tensor]]:
    """Views of ``x (..., Σ width)``, one for each site."""
    widths = [site.width for site in sites]
    return list(zip(sites, torch.split(x, widths, dim=-1), strict=True))


def alone(decoded: dict[str, Tensor]) -> Tensor:
    """The activations of the only written site."""
    if len(decoded) > 1:
        raise BadInput(f"the dictionary writes {', '.join(decoded)}: give a mapping of its sites")
    return next(iter(decoded.values()))
