"""Rows beside their reconstructions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Compared(NamedTuple):
    """Some rows and their reconstructions: ``Σ‖y - ŷ‖²``, and for each row, float64 ``(n,)``,
    ``‖y - ŷ‖²``, ``y · ŷ``, ``‖y‖`` and ``‖ŷ‖``."""

    squared_error: float
    errors: Tensor
    products: Tensor
    norms: Tensor
    found: Tensor

    @classmethod
    def of(cls, y: Tensor, found: Tensor, error: Tensor) -> "Compared":
        """Rows, reconstructions and their differences, float64 ``(n, width)`` each."""
        errors = squares(error)
        return cls(
            errors.sum().item(),
            errors,
            (y * found).sum(dim=-1),
            y.norm(dim=-1),
            found.norm(dim=-1),
        )

    @classmethod
    def together(cls, parts: Sequence["Compared"]) -> "Compared":
        """The same of several sites side by side."""
        if len(parts) == 1:
            return parts[0]
        _, *rows = zip(*parts, strict=True)
        errors, products, norms, found = (torch.stack(each) for each in rows)
        return cls(
            sum(part.squared_error for part in parts),
            errors.sum(dim=0),
            products.sum(dim=0),
            norms.norm(dim=0),
            found.norm(dim=0),
        )

    @property
    def ratios(self) -> Tensor:
        """``‖ŷ‖ / ‖y‖`` of each row, 0 where y = 0."""
        return torch.where(self.norms > 0, self.found / self.norms, 0)

    @property
    def cosines(self) -> Tensor:
        """The cosine of each row, 0 where y = 0 or ŷ = 0."""
        along = self.products / (self.norms * self.found)
        return torch.where((self.norms > 0) & (self.ratios > 0), along, 0)


def squares(rows: Tensor) -> Tensor:
    """``Σ x²`` of each row ``(n, d)``, ``(n,)``."""
    # A third of the time of the sum of the squares, which first writes these down.
    found: Tensor = rows.norm(dim=-1)
    return found.square_()
