"""The rows of a token, or of a sequence of tokens, in the columns of a store."""

from collections.abc import Iterator, Sequence

import numpy as np

from rkstore.errors import BadInput
from rkstore.store.readable import Readable
from rkstore.store.rows import Rows

# Rows whose tokens are read at once: 4 MB.
SPAN_ROWS = 2**20


def rows_of(store: Readable, word: str | int, *, spaced: bool, limit: int | None) -> Rows:
    """See :meth:`rkstore.store.lookup.Lookup.find`."""
    if limit is not None and limit < 1:
        raise BadInput(f"the limit is {limit} rows: give 1 or more")
    wanted = _wanted(store, word, spaced)
    found: list[Rows] = []
    count = 0
    for rows in _found(store, wanted):
        found.append(rows)
        count += len(rows)
        if limit is not None and count >= limit:
            break
    return np.concatenate([np.empty(0, np.int64), *found])[:limit]


def _wanted(store: Readable, word: str | int, spaced: bool) -> list[tuple[int, ...]]:
    """The sequences of tokens, one or more of each."""
    if isinstance(word, str):
        words = store.words
        wanted = words.ids_of(word)
        if spaced and not word.startswith(" "):
            wanted += words.ids_of(f" {word}")
        return list(dict.fromkeys(wanted))
    if isinstance(word, bool) or not hasattr(word, "__index__"):
        raise BadInput(f"a token is a text or a number, not {type(word).__name__}")
    if spaced:
        raise BadInput("the id of a token says whether it has a space: leave out spaced")
    id = word.__index__()
    if not 0 <= id < 2**31:
        raise BadInput(f"{id} is no id of a token: they count from 0")
    return [(id,)]


def _found(store: Readable, wanted: Sequence[tuple[int, ...]]) -> Iterator[Rows]:
    """The rows at which one of the sequences ends, span after span, each in order."""
    longest = max(map(len, wanted))
    text, _ = store.in_text(store.first_row, store.first_row)
    if longest > 1 and text.manifest.context_size == 1:
        raise BadInput(
            f"that is {longest} tokens, and the rows of {text.where} are not whole blocks of a "
            "text: find one token"
        )
    for first in range(store.first_row, store.stop_row, SPAN_ROWS):
        _, rows = store.in_text(first, min(first + SPAN_ROWS, store.stop_row))
        start = max(text.first_row, int(rows[0]) - longest + 1)
        ids = text.column("token_id", start, int(rows[-1]) + 1)
        ends = np.zeros(len(ids), bool)
        for sequence in wanted:
            ends |= _ends(text, ids, start, sequence)
        yield first + np.flatnonzero(ends[rows - start])


def _ends(text: Readable, ids: np.ndarray, start: int, sequence: tuple[int, ...]) -> np.ndarray:
    """Whether the sequence ends at each of these tokens, from row ``start`` on."""
    before = len(sequence) - 1
    ends = np.zeros(len(ids), bool)
    if before >= len(ids):
        return ends
    ends[before:] = True
    for place, id in enumerate(sequence):
        ends[before:] &= ids[place : len(ids) - before + place] == id
    at = np.flatnonzero(ends) if before else np.empty(0, np.int64)
    if len(at):
        document = text.column("document", start, start + len(ids))
        size = text.manifest.context_size
        same = (start + at) // size == (start + at - before) // size
        ends[at] = same & (document[at] == document[at - before])
    return ends
