"""Which rows of a store are read: not those of special tokens or of too large a norm.

A BOS row is the same in every block and often massive: dictionaries and probes would spend their
capacity on one point. The store keeps every row; rows are left out on reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.readable import Readable

# Rows, evenly spread over the store, whose norms give the median of a site.
MEDIAN_ROWS = 8192

NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Rows of a store that are not read, by number, ascending int64."""

    rows: NDArray[np.int64] = field(default_factory=lambda: NONE)

    def within(self, first: int, stop: int) -> NDArray[np.int64]:
        """The rows left out from ``first`` to ``stop``."""
        return self.rows[slice(*np.searchsorted(self.rows, [first, stop]))]

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are left out."""
        if not len(self.rows):
            return np.zeros(len(rows), bool)
        near = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        found: NDArray[np.bool_] = self.rows[near] == rows
        return found

    def kept(self, first: int, stop: int) -> NDArray[np.int64]:
        """The other rows from ``first`` to ``stop``, ascending."""
        rows = np.arange(first, stop)
        return np.delete(rows, self.within(first, stop) - first) if len(self.rows) else rows

    def read(self, store: Readable, hook_name: str, chunk: int) -> NDArray[np.float32]:
        """Activations of the rows of a chunk that are kept, ``(rows, d_in)``."""
        first, stop = store.rows_of_chunk(chunk)
        x = store.chunk(hook_name, chunk)
        return x[self.kept(first, stop) - first] if len(self.within(first, stop)) else x


ALL_KEPT = LeftOut()


def at_any(found: Sequence[LeftOut]) -> LeftOut:
    """The rows that are left out at any of some sites."""
    return LeftOut(np.unique(np.concatenate([NONE, *(out.rows for out in found)])))


def left_out(
    store: Readable,
    hook_name: str,
    chunks: Sequence[int],
    *,
    special_tokens: bool = False,
    max_norm: float | None = None,
) -> LeftOut:
    """The rows of some chunks of a site that are not to be read.

    Args:
        special_tokens: whether rows of special tokens are read as well.
        max_norm: rows whose norm is more than this many times the site's median are left out; by
            default no row is.

    Raises:
        BadInput: nothing would be left.
    """
    special = np.array(() if special_tokens else special_ids(store), np.int32)
    longest = None if max_norm is None else max_norm * _median(store, hook_name)
    with store.ahead([] if longest is None else [hook_name], chunks) as near:
        found = [_of_chunk(near, hook_name, chunk, special, longest) for chunk in chunks]
    rows = np.concatenate([NONE, *found])
    total = sum(len(range(*store.rows_of_chunk(chunk))) for chunk in chunks)
    if chunks and len(rows) == total:
        raise BadInput(
            f"every row of {hook_name} in {store.where} is of a special token or too long: "
            "use --special-tokens, or a larger --max-norm"
        )
    return LeftOut(np.sort(rows))


def special_ids(store: Readable) -> tuple[int, ...]:
    """The ids of the tokenizer's special tokens; an older store may record only BOS.

    Empty if no tokenizer is recorded, as in most imports.
    """
    tokenizer = store.manifest.source.get("tokenizer") or {}
    ids = tokenizer.get("special_token_ids", [tokenizer.get("bos_token_id")])
    return tuple(id for id in ids if isinstance(id, int))


def _of_chunk(
    store: Readable,
    hook_name: str,
    chunk: int,
    special: NDArray[np.int32],
    longest: float | None,
) -> NDArray[np.int64]:
    first, stop = store.rows_of_chunk(chunk)
    out = np.zeros(stop - first, bool)
    if len(special):
        out |= np.isin(store.column("token_id", first, stop), special)
    if longest is not None:
        out |= _norms(store.chunk(hook_name, chunk)) > longest
    return first + np.flatnonzero(out)


def _median(store: Readable, hook_name: str) -> float:
    """The median norm of rows evenly spread over all readable rows."""
    count = -(-MEDIAN_ROWS // store.manifest.chunk_rows)
    chunks = store.chunk_range[:: max(1, len(store.chunk_range) // count)]
    with store.ahead([hook_name], chunks) as near:
        return float(np.median(np.concatenate([_norms(near.chunk(hook_name, c)) for c in chunks])))


def _norms(x: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return np.sqrt(squares)
