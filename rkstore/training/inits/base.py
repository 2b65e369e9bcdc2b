"""The interface of inits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from rkstore.settings import Settings

if TYPE_CHECKING:  # reading an init's options must not import torch
    import torch
    from torch import Tensor

    from rkstore.dictionaries.affine import Affine
    from rkstore.dictionaries.dictionary import Weights
    from rkstore.dictionaries.rows import Rows
    from rkstore.dictionaries.wirings import Bank
    from rkstore.rkcnn.source import Source
    from rkstore.store.sites import Site


class Data(Protocol):
    """The rows that a dictionary will be trained on: of a run, or in memory (``arrays.py``)."""

    @property
    def maps(self) -> Mapping[str, Affine]: ...
    def of(self, sites: tuple[Site, ...]) -> Data: ...
    def sample(self, rows: int = ...) -> Rows: ...
    def draw(self, rows: int, generator: torch.Generator) -> Rows: ...
    def mean(self, hook_name: str) -> Tensor: ...
    def source(self, hook_name: str, rows: int) -> Source: ...


@dataclass(frozen=True)
class Start:
    """One bank of a dictionary before its first step, and the rows it will be trained on.

    Args:
        weights: to be filled; its decoder holds random unit rows.
        b_dec: the initial decoder bias of the sites it writes, ``(d_out,)``.
        centre: what its encoder reads relative to, ``(d_in,)``; ``b_dec`` where it writes what it
            reads.
        directions: of a probe, ``(n, d_in)``, the best first, instead of mined ones.
        beside: sites that other latents have together with those of this bank (``exclusive.py``).
        apart: of its sites, those that other latents have for themselves.
    """

    bank: Bank
    weights: Weights
    b_dec: Tensor
    centre: Tensor
    reading: Data
    seed: int
    directions: Tensor | None = None
    beside: tuple[Site, ...] = ()
    apart: tuple[tuple[Site, ...], ...] = ()

    def sample(self, rows: int) -> tuple[Tensor, Tensor]:
        """What it reads and what it writes of about that many tokens, evenly spread.

        ``(n, d_in)`` and ``(n, d_out)``; one matrix if it writes what it reads.
        """
        return self._both(self.reading.of(self._sites).sample(rows))

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same of that many different tokens, at random."""
        return self._both(self.reading.of(self._sites).draw(rows, generator))

    @property
    def _sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys((*self.bank.reads, *self.bank.writes)))

    def _both(self, rows: Rows) -> tuple[Tensor, Tensor]:
        x = self.side_by_side(rows, self.bank.reads)
        return x, x if self.ties else self.side_by_side(rows, self.bank.writes)

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
    def side_by_side(rows: Rows, sites: tuple[Site, ...]) -> Tensor:
        """Rows of some sites as one matrix."""
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
    def fill(self, start: Start, generator: torch.Generator) -> int | None:
        """Fill the weights of a bank.

        Returns:
            How many of its first latents are mined directions, the best first, if any are.

        Raises:
            BadInput: its options do not fit the site.
        """
