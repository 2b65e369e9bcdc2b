"""Memory for intermediate results and gradients, reused at every step; columns of sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

from rkstore.store.sites import Site


class Scratch:
    """Named pieces of memory that grow as needed.

    Mapping a fresh matrix of 50 MB page by page takes several times longer than writing it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A contiguous uninitialised tensor; it overwrites the last one of this name."""
        key, size = (name, dtype, device), prod(shape)
        if key not in self._held or len(self._held[key]) < size:
            self._held[key] = torch.empty(size, dtype=dtype, device=device)
        return self._held[key][:size].view(shape)


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which must exist."""
    assert parameter.grad is not None
    return parameter.grad


@dataclass(frozen=True)
class Columns:
    """The columns of some sites in a matrix of all written sites, side by side.

    Args:
        parts: of each site; None if they are all columns, so that nothing is copied.
    """

    parts: tuple[slice, ...] | None

    @classmethod
    def of_sites(cls, sites: Sequence[Site], among: Sequence[Site]) -> "Columns":
        """Those of ``sites`` in a matrix of the sites ``among``."""
        ends = [0, *accumulate(site.width for site in among)]
        places = {site: slice(*both) for site, both in zip(among, pairwise(ends), strict=True)}
        return cls(None if tuple(sites) == tuple(among) else tuple(places[s] for s in sites))

    def of(self, matrix: Tensor) -> Tensor:
        """Them alone, ``(..., Σ width)``."""
        if self.parts is None:
            return matrix
        columns = [matrix[..., part] for part in self.parts]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=-1)

    def add(self, matrix: Tensor, part: Tensor, alpha: float = 1) -> None:
        """Add ``alpha · part (..., Σ width)`` to them."""
        if self.parts is None:
            matrix.add_(part, alpha=alpha)
            return
        widths = [place.stop - place.start for place in self.parts]
        for place, piece in zip(self.parts, torch.split(part, widths, dim=-1), strict=True):
            matrix[..., place].add_(piece, alpha=alpha)

    def put(self, parameter: Tensor, gradient: Tensor) -> None:
        """Set these columns of the gradient of a parameter."""
        if self.parts is None:
            parameter.grad = gradient
        else:
            (place,) = self.parts
            grad_of(parameter)[:, place] = gradient
