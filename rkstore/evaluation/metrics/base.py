"""What a metric is: sums over batches of rows, and the numbers that they give."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.sparse import SPARSE, ByLatent, Code, SparseCode
from rkstore.evaluation.metrics.compared import Compared
from rkstore.store.statistics import Statistics

if TYPE_CHECKING:
    from rkstore.planted.features import Planted

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


class Entries(NamedTuple):
    """The latents that are on: the token of each entry, ascending, its latent, and ``|f|`` in
    float64, with a code per site the largest of them."""

    tokens: Tensor
    latents: Tensor
    size: Tensor


@dataclass(frozen=True)
class Given:
    """What a metric may know before the first row."""

    dictionary: Dictionary
    means: Mapping[str, Doubles] = field(default_factory=dict)
    """By written site, the mean of the ordinary rows of the whole store, ``(width,)``."""
    mined: Sequence[int] = ()
    """Latents that began as mined directions."""
    planted: "Planted | None" = None
    """The features of the store, if they are known."""
    model: str = ""
    """Which of two planted models the store is of."""


@dataclass(frozen=True)
class Seen:
    """One batch: ``n`` rows, their code and their reconstructions."""

    dictionary: Dictionary
    rows: Rows
    f: Tensor
    """The code, ``(n, d_sae)``, or ``(sites, n, d_sae)`` with a code per site."""
    decoded: Rows
    first: int
    """How many rows were evaluated before the first of these, in the order of the store."""
    numbers: Integers | None = None
    """The row numbers in the store, ``(n,)``."""
    documents: Integers | None = None
    """The document of each row, ``(n,)``."""

    @property
    def count(self) -> int:
        return self.f.shape[-2]

    @cached_property
    def written(self) -> dict[str, Tensor]:
        """What was to be reconstructed, float64 ``(n, width)`` by written site."""
        return {name: self.rows[name].double() for name in self.decoded}

    @cached_property
    def found(self) -> dict[str, Tensor]:
        """The reconstructions, float64 ``(n, width)`` by written site."""
        return {name: found.double() for name, found in self.decoded.items()}

    @cached_property
    def errors(self) -> dict[str, Tensor]:
        """``y - ŷ``, float64 ``(n, width)`` by written site."""
        return {name: y - self.found[name] for name, y in self.written.items()}

    @cached_property
    def compared(self) -> dict[str, Compared]:
        """How the rows of each written site compare with their reconstructions."""
        return {
            name: Compared.of(y, self.found[name], self.errors[name])
            for name, y in self.written.items()
        }

    @cached_property
    def together(self) -> Compared:
        """The same of all written sites side by side."""
        return Compared.together(list(self.compared.values()))

    @cached_property
    def on(self) -> Tensor:
        """Which latents are on at which token, bool ``(n, d_sae)``."""
        return fires(self.f)

    @cached_property
    def entries(self) -> Entries:
        """The latents that are on, as a list: passes over the whole code cost more."""
        tokens, latents = _places(self.on)
        if self.f.dim() > 2:
            size = self.f[:, tokens, latents].abs().amax(dim=0)
        else:
            size = self.f[tokens, latents].abs()
        return Entries(tokens, latents, size.double())

    @cached_property
    def fired(self) -> Tensor:
        """Tokens that each latent fired on, int64 ``(d_sae,)``."""
        return torch.bincount(self.entries.latents, minlength=self.f.shape[-1])

    def values(self, view: int = 0) -> Tensor:
        """The activation of each entry, float64 ``(entries,)``, in the code of one site."""
        f = self.f[view] if self.f.dim() > 2 else self.f
        return f[self.entries.tokens, self.entries.latents].double()

    def products(self, rows: Tensor, view: int = 0) -> Tensor:
        """``Σ_n f_n y_n`` for each latent, of rows ``y (n, d)``: float64 ``(d_sae, d)``."""
        tokens, latents, _ = self.entries
        if len(tokens) > SPARSE * self.count * self.f.shape[-1]:
            return (self.f[view] if self.f.dim() > 2 else self.f).double().T @ rows
        shape = self.count, self.f.shape[-1]
        values = self.values(view)
        return ByLatent.of(SparseCode(tokens, latents, values, shape)).times(values, rows)

    def by_latent(self, values: Tensor) -> Tensor:
        """The sum over each latent of a value of each entry ``(entries,)``: ``(d_sae,)``."""
        return torch.bincount(self.entries.latents, values, minlength=self.f.shape[-1])


@dataclass(frozen=True)
class Totals:
    """What all metrics share once the last row is in."""

    rows: int
    fired: Integers
    """Tokens that each latent fired on, ``(d_sae,)``."""
    statistics: Mapping[str, Statistics]
    """Of the rows of each written site."""
    codec_fvu: Mapping[str, float]
    """FVU of the stored values of each written site."""

    @property
    def variation(self) -> dict[str, float]:
        """``Σ‖y - μ‖²`` by written site."""
        return {name: float(found.m2.sum()) for name, found in self.statistics.items()}


class Metric(ABC):
    """One subject of an evaluation: what is summed of every batch, and the numbers at the end.

    Sums are float64 or whole numbers, so batches may come in any order and size, and sums of
    several processes may be merged.
    """

    name: ClassVar[str]
    """Its key in results."""

    def __init__(self, given: Given) -> None:
        self.given = given

    @classmethod
    def applies(cls, given: Given) -> bool:  # noqa: ARG003
        """Whether a dictionary has such numbers."""
        return True

    @abstractmethod
    def add(self, seen: Seen) -> None:
        """Add one batch."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add the sums over other rows."""

    @abstractmethod
    def result(self, totals: Totals) -> Any:
        """The numbers, as a dataclass; None if these rows give none."""


def fires(f: Tensor) -> Tensor:
    """Which latents are on at which token, bool ``(n, d_sae)``; with a code per site, at any."""
    on = f.bool()  # which is f != 0, in a third of the time
    return on.any(dim=0) if on.dim() > 2 else on


def listed(f: Tensor) -> Code:
    """A code ``(n, d_sae)`` as a list of what is on, if that is decoded faster."""
    if f.dim() > 2 or f.device.type != "cpu" or f.dtype != torch.float32:
        return f
    tokens, latents = _places(fires(f))
    if len(tokens) > SPARSE * f.numel():
        return f
    return SparseCode(tokens, latents, f[tokens, latents], (f.shape[0], f.shape[1]))


def _places(on: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of what is set in a bool matrix, in order."""
    if on.device.type != "cpu":
        rows, columns = on.nonzero(as_tuple=True)
        return rows, columns
    # NumPy skips what is not set, and takes a fifth of the time.
    places = np.divmod(np.flatnonzero(on.numpy()), on.shape[1])
    return torch.from_numpy(places[0]), torch.from_numpy(places[1])


def decoder_of(dictionary: Dictionary) -> dict[str, Tensor]:
    """Decoder rows by written site, ``(d_sae, width)``: zero where a latent does not write."""
    found = {
        site.hook_name: torch.zeros(dictionary.d_sae, site.width, device=dictionary.b_dec.device)
        for site in dictionary.wiring.writes
    }
    first = 0
    for bank, weights in dictionary.banks:
        latents = slice(first, first := first + bank.latents)
        parts = torch.split(weights.W_dec.detach(), [site.width for site in bank.writes], dim=1)
        for site, part in zip(bank.writes, parts, strict=True):
            found[site.hook_name][latents] = part
    return found
