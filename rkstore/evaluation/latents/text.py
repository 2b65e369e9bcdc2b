"""Which characters of a document each of its tokens is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.store.batches.kept import special_ids
from rkstore.store.lookup import Document
from rkstore.store.readable import Readable
from rkstore.store.words import Words

# What a tokenizer makes of a part of a character, and the most tokens that one may have.
PART, MOST_PARTS = "\ufffd", 4


@dataclass(frozen=True, eq=False)
class Text:
    """The text of a document, and where each of its tokens is in it."""

    text: str
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    """``(n,)`` each: token ``i`` is ``text[begin[i]:end[i]]``; a special token is no text, and a
    token that is part of a character has all of it."""
    position: NDArray[np.int64]
    """``(n,)``: of each token in its context."""
    context_size: int

    def first(self) -> NDArray[np.int64]:
        """Place of the first character of each token that is no white space, ``(n,)``.

        Of a token that is white space alone, that of its first character; -1 where there is none.
        """
        spans = zip(self.begin.tolist(), self.end.tolist(), strict=True)
        return np.array([self._first(begin, end) for begin, end in spans], np.int64)

    def _first(self, begin: int, end: int) -> int:
        own = self.text[begin:end]
        blank = len(own) - len(own.lstrip())
        return -1 if not own else begin if blank == len(own) else begin + blank


def text_of(store: Readable, document: Document) -> tuple[Text, NDArray[np.int64]]:
    """The text of a document, and for each of its rows the token that it is.

    Raises:
        BadInput: the store has no tokenizer.
    """
    source, rows = store.in_text(document.first_row, document.stop_row)
    first, stop = int(rows[0]), int(rows[-1]) + 1
    ids = source.column("token_id", first, stop)
    pieces = list(pieces_of(source.words, ids.tolist(), set(special_ids(source))))
    lengths = np.array([len(own) for own, _ in pieces], np.int64)
    end = np.cumsum(lengths)
    begin = end - lengths
    for i, (_, together) in enumerate(pieces):
        if together:  # tokens of one character: each has all of it
            begin[i : i + together] = begin[i]
            end[i : i + together] = end[i + together - 1]
    text = "".join(own for own, _ in pieces)
    position = source.column("position", first, stop).astype(np.int64)
    size = source.manifest.context_size
    return Text(text, begin, end, position, size), rows - first


def pieces_of(words: Words, ids: Sequence[int], special: set[int]) -> Iterator[tuple[str, int]]:
    """The text of each token within the run, whose sum is the text of the run, and 0.

    Tokens that are parts of one character come as one piece: its text with the first of them, and
    their number; nothing with the others. Special tokens are empty.
    """
    known = dict.fromkeys(special, "")
    i = 0
    while i < len(ids):
        id = ids[i]
        if id not in known:
            known[id] = words.word(id)
        own, count = known[id], 1
        if PART in own:
            own, count = _whole(words, ids[i : i + MOST_PARTS])
        yield own, count if count > 1 else 0
        yield from [("", 0)] * (count - 1)
        i += count


def _whole(words: Words, ids: Sequence[int]) -> tuple[str, int]:
    """The text of as few of these tokens as make whole characters, and how many these are."""
    for count in range(1, len(ids) + 1):
        own = words.within(ids[:count])
        if PART not in own:
            return own, count
    return words.within(ids[:1]), 1
