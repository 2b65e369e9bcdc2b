"""Which rows of a store are looked at for samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.samples.settings import CollectSettings
from rkstore.store.batches.kept import LeftOut, at_any, left_out
from rkstore.store.readable import Readable


@dataclass(frozen=True, eq=False)
class Looking:
    """Some chunks of a store, as a dictionary reads them."""

    store: Readable
    sites: tuple[str, ...]
    """Those that the dictionary reads."""
    chunks: Sequence[int]
    """Ascending; where they are not all, they hold whole blocks."""
    left_out: LeftOut
    context_size: int
    """Tokens in a block of the text."""
    threshold: float
    batch_size: int
    device: str

    @property
    def count(self) -> int:
        """Rows that are looked at."""
        spans = map(self.store.rows_of_chunk, self.chunks)
        return sum(stop - first for first, stop in spans) - len(self.left_out.rows)

    def in_text(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ascending rows as rows of the store that has the text."""
        first = int(rows[0])
        _, all_of_them = self.store.in_text(first, int(rows[-1]) + 1)
        return all_of_them[rows - first]


def look(dictionary: Dictionary, store: Readable, settings: CollectSettings) -> Looking:
    """The rows of a store to look at with a dictionary.

    Raises:
        BadInput: the store lacks a site that it reads, or every row is left out.
    """
    sites = tuple(site.hook_name for site in dictionary.wiring.reads)
    for name in sites:
        store.check_site(name)
    chunks = _spread(store, settings.rows)
    special_tokens, max_norm = settings.special_tokens, settings.max_norm
    out = at_any(
        [
            left_out(store, site, chunks, special_tokens=special_tokens, max_norm=max_norm)
            for site in sites
        ]
    )
    text, _ = store.in_text(store.first_row, store.first_row)
    found = Looking(
        store,
        sites,
        chunks,
        out,
        text.manifest.context_size,
        settings.sample_activation_threshold,
        settings.batch_size,
        settings.device,
    )
    if not found.count:
        raise BadInput(
            f"every row of {store.where} is left out at one of its sites: use --special-tokens, or "
            "a larger --max-norm"
        )
    return found


def _spread(store: Readable, rows: int | None) -> Sequence[int]:
    """Chunks of whole blocks, evenly spread, with at least so many rows; all, if none are asked."""
    if rows is None or rows >= store.stop_row - store.first_row:
        return store.chunk_range
    text, _ = store.in_text(store.first_row, store.first_row)
    chunk_rows, block = store.manifest.chunk_rows, text.manifest.context_size
    if block != store.manifest.context_size:
        raise BadInput(
            f"the blocks of {store.where} lie across its chunks, so a part of its rows would cut "
            "them: leave out --rows"
        )
    together = math.lcm(chunk_rows, block) // chunk_rows
    groups: dict[int, list[int]] = {}
    for chunk in store.chunk_range:
        groups.setdefault(chunk // together, []).append(chunk)
    numbers = list(groups)
    count = min(len(numbers), -(-rows // (together * chunk_rows)))
    chosen = (numbers[i * len(numbers) // count] for i in range(count))
    return [chunk for number in chosen for chunk in groups[number]]
