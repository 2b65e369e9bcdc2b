"""The interface of inits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from rkstore.settings import Settings

if TYPE_CHECKING:  # reading an init's options must not import torch
    import torch
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Weights
    from rkstore.dictionaries.rows import Rows
    from rkstore.dictionaries.wirings import Bank
    from rkstore.store.sites import Site
    from rkstore.training.reading import Reading


@dataclass(frozen=True)
class Start:
    """One bank of a dictionary before its first step, and the rows it will be trained on.

    Args:
        weights: to be filled; its decoder holds random unit rows.
        b_dec: the initial decoder bias of the sites it writes, ``(d_out,)``.
        centre: what its encoder reads relative to, ``(d_in,)``; ``b_dec`` where it writes what it
            reads.
        directions: of a probe, ``(n, d_in)``, the best first, instead of mined ones.
    """

    bank: Bank
    weights: Weights
    b_dec: Tensor
    centre: Tensor
    reading: Reading
    seed: int
    directions: Tensor | None = None

    def sample(self, rows: int) -> Tensor:
        """About that many of the rows that it reads, evenly spread, ``(n, d_in)``."""
        return self._side_by_side(self.reading.sample(rows), self.bank.reads)

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What it reads and what it writes of that many different tokens, at random.

        ``(rows, d_in)`` and ``(rows, d_out)``; one matrix if it writes what it reads.
        """
        sites = tuple(dict.fromkeys((*self.bank.reads, *self.bank.writes)))
        drawn = replace(self.reading, sites=sites).draw(rows, generator)
        x = self._side_by_side(drawn, self.bank.reads)
        return x, x if self.ties else self._side_by_side(drawn, self.bank.writes)

    def mapped(self, directions: Tensor) -> Tensor:
        """Unit directions ``(n, d_in)`` of the one site that it reads, as it is trained on."""
        found = self.reading.maps.get(self.bank.reads[0].hook_name)
        return found.directions(directions) if found else directions

    @property
    def ties(self) -> bool:
        """Whether it writes what it reads, so that encoder and decoder may be tied."""
        return self.bank.reads == self.bank.writes

    def tie(self) -> None:
        """Make the encoder the transpose of the decoder."""
        self.weights.W_enc.copy_(self.weights.W_dec.T)

    def normalise(self) -> None:
        """Give the rows of the decoder norm 1."""
        W_dec = self.weights.W_dec
        W_dec.div_(W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @staticmethod
    def _side_by_side(rows: Rows, sites: tuple[Site, ...]) -> Tensor:
        from rkstore.dictionaries.rows import side_by_side

        return side_by_side(rows, sites)


class Init(Settings, ABC):
    """How the tensors of a bank are initialised. Its fields are its options."""

    name: ClassVar[str]
    centred: ClassVar[bool] = True
    """Whether ``b_dec`` is the mean of the rows unless asked otherwise; else it is zero."""
    scaled: ClassVar[bool] = False
    """Whether the encoder is scaled to the rows unless asked otherwise (``--init-scale``)."""
    any_sites: ClassVar[bool] = False
    """Whether a bank may write other sites than it reads."""

    @abstractmethod
    def fill(self, start: Start, generator: torch.Generator) -> None:
        """Fill the weights of a bank.

        Raises:
            BadInput: its options do not fit the site.
        """
