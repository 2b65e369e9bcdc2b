"""Held-out rows in whole documents, part of which train probes and the rest measures them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.latents.classes import CLASSES, Labels
from rkstore.evaluation.latents.directions import Doubles
from rkstore.evaluation.latents.text import text_of
from rkstore.store.batches.kept import LeftOut
from rkstore.store.readable import Readable
from rkstore.store.sites import Site

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]

# With fewer documents, contexts are kept whole instead: an interval needs several of them.
LEAST_DOCUMENTS = 20

# Of the documents, those that train probes.
TRAIN_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of a store, ascending, with what is known of them."""

    store: Readable
    rows: Indices
    """``(n,)``"""
    group: Indices
    """``(n,)``: the number of the document, or the context, of each row."""
    train: NDArray[np.bool_]
    """``(n,)``: whether probes are trained on it, or measured."""
    unit: str
    """``documents`` or ``contexts``: what is whole in one of the two."""
    _read: dict[str, Floats] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        return len(np.unique(self.group))

    @cached_property
    def tokens(self) -> Indices:
        """Their token ids, ``(n,)``."""
        found: Indices = self.store["token_id", self.rows].astype(np.int64)
        return found

    def x(self, hook_name: str) -> Floats:
        """Activations of a site, ``(n, width)``; read once."""
        if hook_name not in self._read:
            self._read[hook_name] = self.store[hook_name, self.rows]
        return self._read[hook_name]

    def size(self, hook_name: str) -> float:
        """Root of the mean squared distance of a site's training rows from their mean.

        Raises:
            BadInput: they are all the same.
        """
        x = self.x(hook_name)[self.train].astype(np.float64)
        size = float(np.sqrt(np.square(x - x.mean(axis=0)).sum(axis=1).mean()))
        if size == 0:
            raise BadInput(f"{hook_name} is constant over these rows: there is nothing to probe")
        return size

    def side_by_side(self, sites: Sequence[Site], centre: Doubles | None = None) -> Floats:
        """Activations of several sites, ``(n, Σ width)``, each divided by its :meth:`size`.

        Args:
            centre: what is subtracted before, ``(Σ width,)``; the mean of the training rows by
                default.
        """
        found = np.empty((len(self.rows), sum(site.width for site in sites)), np.float32)
        first = 0
        for site in sites:
            x, here = self.x(site.hook_name), slice(first, first := first + site.width)
            own = x[self.train].mean(axis=0, dtype=np.float64) if centre is None else centre[here]
            found[:, here] = (x - own) / self.size(site.hook_name)
        return found


def sample(
    store: Readable, chunks: Sequence[int], left_out: LeftOut, rows: int, seed: int
) -> Sample:
    """About ``rows`` rows of some chunks, in whole documents, drawn at random.

    Raises:
        BadInput: there are too few documents, or contexts, to train on some and measure others.
    """
    kept = np.concatenate([left_out.kept(*store.rows_of_chunk(chunk)) for chunk in chunks])
    group, unit = store["document", kept].astype(np.int64), "documents"
    if len(np.unique(group)) < LEAST_DOCUMENTS:
        group, unit = kept // store.manifest.context_size, "contexts"
    names, count = np.unique(group, return_counts=True)
    if len(names) < 4:
        raise BadInput(
            f"the held-out rows of {store.where} are of {len(names)} contexts, too few to train "
            "probes on some and measure others: harvest more tokens"
        )
    order = np.random.default_rng([seed, 0]).permutation(len(names))
    before = np.cumsum(count[order]) - count[order]
    chosen = order[: max(4, int(np.searchsorted(before, min(rows, len(kept)))))]
    trained = chosen[: max(1, min(len(chosen) - 1, round(len(chosen) * TRAIN_SHARE)))]
    here = np.isin(group, names[chosen])
    return Sample(store, kept[here], group[here], np.isin(group[here], names[trained]), unit)


def labels_of(chosen: Sample, classes: str) -> Labels:
    """The token classes of the rows of a sample, each ``(n,)``.

    Raises:
        BadInput: the store has no tokenizer.
    """
    found: Labels = {}
    of_text: Callable[..., Labels] = CLASSES[classes]
    for document in chosen.store.documents():
        first, stop = np.searchsorted(chosen.rows, [document.first_row, document.stop_row])
        if first == stop:
            continue
        text, at = text_of(chosen.store, document)
        here = at[chosen.rows[first:stop] - document.first_row]
        for name, labels in of_text(text).items():
            found.setdefault(name, np.full(len(chosen.rows), -1, np.int8))[first:stop] = labels[
                here
            ]
    return found
