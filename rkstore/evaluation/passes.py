"""Which passes of the model show what a dictionary does in it: each of its sites, then all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.evaluation.predictions import ERRORS, MEAN, RANDOM, SPLICED, ZERO
from rkstore.evaluation.splices import Live, Put, Splice, can_be_live, errors_of


@dataclass(frozen=True, eq=False)
class Given:
    """A dictionary to be measured, and where."""

    path: str
    name: str
    dictionary: Dictionary
    notes: tuple[str, ...]
    chosen: NDArray[np.bool_] = field(repr=False)
    """Rows that may be replaced, those that training would read, ``(blocks, context_size)``."""
    means: Mapping[str, Tensor] = field(repr=False)
    """By written site, the mean ``(width,)`` of the stored rows that are measured."""
    random: "Given | None" = None
    """A random dictionary in its place."""

    @property
    def sites(self) -> list[str]:
        """Every site that is read or written."""
        return [site.hook_name for site in self.dictionary.wiring.sites]

    @property
    def writes(self) -> set[str]:
        """The sites that are written."""
        return {site.hook_name for site in self.dictionary.wiring.writes}


@dataclass(frozen=True, eq=False)
class Batch:
    """What the clean runs of the models gave over some blocks."""

    blocks: slice
    rows: Rows
    """By site, of all models."""
    decoded: Mapping[str, Rows]
    """Reconstructions of these, by name of the dictionary."""

    @classmethod
    def of(cls, blocks: slice, rows: Rows, given: Sequence[Given]) -> "Batch":
        """The reconstructions of some rows by each dictionary, and by the random ones."""
        every = [*given, *(one.random for one in given if one.random)]
        with torch.inference_mode():
            decoded = {
                one.name: one.dictionary.reconstruct({site: rows[site] for site in one.sites})[1]
                for one in every
            }
        return cls(blocks, rows, decoded)

    def chosen(self, given: Given) -> Tensor:
        """Which of these rows may be replaced, bool ``(n,)``."""
        some = next(iter(self.rows.values()))
        return torch.from_numpy(given.chosen[self.blocks].reshape(-1)).to(some.device)


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass of a model over all blocks; those with one key are the same."""

    key: tuple[Any, ...]
    sites: tuple[str, ...]
    """Those that it reads or replaces."""
    splice: Callable[[Batch], Splice]


@dataclass(frozen=True, eq=False)
class Planned:
    """One splice of a dictionary, with its passes by name."""

    given: Given
    sites: tuple[str, ...]
    feedback: bool
    passes: Mapping[str, Pass]


def planned(given: Given, order: Sequence[str], *, each_site: bool = True) -> Iterator[Planned]:
    """The splices of a dictionary in one model: each site alone, and all at once if several.

    Args:
        each_site: whether sites of several are also spliced alone.
        order: the dictionary's sites that are of this model, in the order of computation.
    """
    writes = tuple(site for site in order if site in given.writes)
    feedback = can_be_live(given.dictionary, order)
    alone = [(site,) for site in writes] if each_site and len(writes) > 1 else []
    for sites in (*alone, writes):
        live = feedback and len(sites) > 1
        kinds = {SPLICED: given} | ({RANDOM: given.random} if given.random else {})
        passes = {
            name: _live(one, order) if live else _put(one, sites) for name, one in kinds.items()
        } | {
            ZERO: _ablated(given, sites, ZERO),
            MEAN: _ablated(given, sites, MEAN),
        }
        if sites == writes:
            errors = _live(given, order, errors=True) if live else _put(given, sites, errors=True)
            passes[ERRORS] = errors
        yield Planned(given, sites, feedback, passes)


def _live(given: Given, order: Sequence[str], errors: bool = False) -> Pass:
    """All sites at once, each reconstructed from what the pass computes."""

    def splice(batch: Batch) -> Splice:
        kept = errors_of(batch.rows, batch.decoded[given.name]) if errors else None
        return Live(given.dictionary, batch.chosen(given), kept)

    return Pass((given.name, tuple(order), errors), tuple(order), splice)


def _put(given: Given, sites: tuple[str, ...], errors: bool = False) -> Pass:
    """Reconstructions of what the clean run computes, at some sites."""

    def splice(batch: Batch) -> Splice:
        decoded = batch.decoded[given.name]
        kept = errors_of(batch.rows, decoded)
        found = {site: decoded[site] + kept[site] if errors else decoded[site] for site in sites}
        return Put(found, batch.chosen(given))

    return Pass((given.name, sites, errors), sites, splice)


def _ablated(given: Given, sites: tuple[str, ...], kind: str) -> Pass:
    """Zeros or the mean in place of the rows; the same for every dictionary of these rows."""
    values = {site: given.means[site] * (kind == MEAN) for site in sites}

    def splice(batch: Batch) -> Splice:
        return Put(values, batch.chosen(given))

    return Pass((kind, sites, given.chosen.tobytes()), sites, splice)
