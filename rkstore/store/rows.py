"""Any rows of a store, in any order, with each chunk decoded once."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.manifest import COLUMNS
from rkstore.store.readable import Readable

# A row, a slice, row numbers in any order, or a mask over the readable rows.
Asked = Any

Rows = NDArray[np.int64]


class NoSuchRow(BadInput, IndexError):
    """A row that a store does not have."""


def is_one(asked: Asked) -> bool:
    """Whether a single row is asked for, by its number."""
    return hasattr(asked, "__index__") and np.ndim(asked) == 0 and not _is_mask(asked)


def rows_asked(store: Readable, asked: Asked) -> Rows:
    """The numbers of the rows that are asked for, int64 ``(n,)``.

    Args:
        asked: a row number; a slice; a list or array of row numbers, in any order, with repeats;
            or a mask, one boolean for each readable row. Negative numbers count from the end.

    Raises:
        NoSuchRow: a row is not in the store.
        BadInput: it is none of these.
    """
    if isinstance(asked, slice):
        return _of_slice(store, asked)
    if is_one(asked):
        return _checked(store, np.array([operator.index(asked)], np.int64))
    if isinstance(asked, tuple):  # to NumPy, a row and a dimension
        raise BadInput("give a list of rows, or a site and rows: store[site, rows]")
    found = np.asarray(asked)
    if found.ndim == 1 and found.size == 0:
        return np.empty(0, np.int64)
    if found.ndim != 1 or not (_is_mask(found) or np.issubdtype(found.dtype, np.integer)):
        raise BadInput(
            f"rows are named by a number, a slice, a list of whole numbers or a mask, "
            f"not by {type(asked).__name__} of {found.dtype} with {found.ndim} dimensions"
        )
    if _is_mask(found):
        readable = store.stop_row - store.first_row
        if len(found) != readable:
            raise BadInput(f"the mask has {len(found)} values and the store {readable} rows")
        return store.first_row + np.flatnonzero(found)
    return _checked(store, found.astype(np.int64))


def column_of(store: Readable, name: str, rows: Rows) -> NDArray[Any]:
    """Activations ``(n, d_in)`` float32 of a site, or a column ``(n,)``, at those rows.

    Raises:
        BadInput: the store has neither a site nor a column of this name.
    """
    if name in COLUMNS:
        dtype = COLUMNS[name].newbyteorder("=")
        return _gathered(store, rows, np.empty(len(rows), dtype), lambda c: _column(store, name, c))
    store.check_site(name)
    out = np.empty((len(rows), store.manifest.width(name)), np.float32)
    chunks = np.unique(rows // store.manifest.chunk_rows).tolist()
    # At a URL the shard of a single chunk is kept: the next row asked for may be in it.
    with store.ahead([name] if len(chunks) > 1 else [], chunks) as near:
        return _gathered(store, rows, out, lambda chunk: near.chunk(name, chunk))


def each_row(store: Readable) -> Iterator[dict[str, Any]]:
    """Every readable row as a dict of its columns and its activations, a chunk at a time."""
    for chunk in store.chunk_range:
        columns = {name: _column(store, name, chunk).tolist() for name in COLUMNS}
        sites = {name: store.chunk(name, chunk) for name in store.hook_names}
        first, stop = store.rows_of_chunk(chunk)
        for at in range(stop - first):
            # Copied: one row that is kept must not keep its chunk.
            yield {name: values[at] for name, values in columns.items()} | {
                name: x[at].copy() for name, x in sites.items()
            }


def _gathered(
    store: Readable, rows: Rows, out: NDArray[Any], load: Callable[[int], NDArray[Any]]
) -> NDArray[Any]:
    if not len(rows):
        return out
    order = np.argsort(rows, kind="stable")
    chunks, begins = np.unique(rows[order] // store.manifest.chunk_rows, return_index=True)
    for chunk, begin, end in zip(chunks, begins, [*begins[1:], len(rows)], strict=True):
        places, first = order[begin:end], store.rows_of_chunk(int(chunk))[0]
        out[places] = load(int(chunk))[rows[places] - first]
    return out


def _column(store: Readable, name: str, chunk: int) -> NDArray[np.signedinteger[Any]]:
    return store.column(name, *store.rows_of_chunk(chunk))


def _is_mask(asked: Any) -> bool:
    return isinstance(asked, bool) or getattr(asked, "dtype", None) == np.bool_


def _of_slice(store: Readable, asked: slice) -> Rows:
    first, stop = store.first_row, store.stop_row
    try:
        backwards = asked.step is not None and operator.index(asked.step) < 0
        begin = first if asked.start is None and not backwards else asked.start
        rows = range(stop)[begin : asked.stop : asked.step]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{asked} names no rows: {error}") from None
    found = np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
    if backwards and asked.stop is None:  # down to the first that is here
        found = found[found >= first]
    return _checked(store, found)


def _checked(store: Readable, rows: Rows) -> Rows:
    """Row numbers from 0, negative ones counted from the end."""
    found = np.where(rows < 0, rows + store.stop_row, rows)
    wrong = rows[(found < store.first_row) | (found >= store.stop_row)]
    if len(wrong):
        raise NoSuchRow(
            f"row {wrong[0]} is not in the store at {store.where}, which has rows "
            f"{store.first_row}:{store.stop_row}"
        )
    return found
