"""Metrics of a dictionary while it is trained, on a few held-out rows that are read once."""

from functools import cache

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.measure import Measure
from rkstore.store.batches.assemble import read_rows
from rkstore.store.batches.kept import at_any, left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.readable import Readable

# About so many rows are enough for an FVU to three digits.
ROWS = 8192

# Rows at a time.
BATCH = 2048


class HeldOut:
    """The first held-out rows of a store.

    Args:
        special_tokens: whether rows of special tokens are measured, as in the training.
        max_norm: rows of a larger norm, in medians of a site, are not, as in the training.
        rows: about how many to measure.

    Raises:
        BadInput: no row of this part of the store is held out.
    """

    def __init__(
        self, store: Readable, special_tokens: bool, max_norm: float | None, rows: int = ROWS
    ) -> None:
        _, chunks = split_chunks(store)
        if not chunks:
            raise BadInput(
                f"the store at {store.where} has no held-out rows in its rows "
                f"{store.first_row}:{store.stop_row}: leave out --evaluate-every"
            )
        needed = -(-rows // store.manifest.chunk_rows)
        self._store, self._chunks = store, chunks[:needed]
        self._special_tokens, self._max_norm = special_tokens, max_norm
        self._read = cache(self._of_sites)

    def metrics(self, dictionary: Dictionary) -> dict[str, float]:
        """FVU, explained variance, MSE, cosine, L0 and dead latents on the rows, by name.

        Args:
            dictionary: for rows as they are stored; a copy of the run's, which is put into the mode
                of use, as a BatchTopK code of training is another.
        """
        measure = Measure(dictionary.eval())
        sites = tuple(site.hook_name for site in dictionary.wiring.sites)
        for x in self._read(sites):
            measure.add({name: rows.to(dictionary.b_dec.device) for name, rows in x.items()})
        found = measure.result("", {name: self._store.codec_fvu(name) for name in measure.by_site})
        return {
            "val_fvu": found.fvu,
            "val_explained_variance": found.explained_variance,
            "val_mse": found.mse,
            "val_cosine": found.cosine,
            "val_L0": found.l0,
            "val_dead_features": float(found.dead),
        }

    def _of_sites(self, sites: tuple[str, ...]) -> list[dict[str, Tensor]]:
        out = [
            left_out(
                self._store,
                site,
                self._chunks,
                special_tokens=self._special_tokens,
                max_norm=self._max_norm,
            )
            for site in sites
        ]
        batches = read_rows(self._store, sites, self._chunks, BATCH, at_any(out))
        return [{name: torch.from_numpy(x) for name, x in batch.x.items()} for batch in batches]
