"""The text of the rows that are shown, written once: samples and blocks are only rows of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.report.page.scripts import column, script
from rkstore.evaluation.report.page.vocabulary import Vocabulary, in_parts
from rkstore.store.readable import Readable

Ints = NDArray[np.int64]

# Tokens in one file: 90 kB.
PART = 32_768


@dataclass(frozen=True, eq=False)
class Text:
    """The tokens of some spans of a store's text, numbered through: a row of the page."""

    spans: tuple[tuple[int, int], ...]
    """First row of the text, and one past the last, of each span; whole blocks, ascending."""
    ids: Ints
    """The tokenizer's ids of all rows, ``(rows,)``."""
    block: int
    """Tokens in a block."""

    @classmethod
    def of(cls, store: Readable, chunks: Sequence[int]) -> "Text":
        """The text of the rows of some chunks, ascending, filled up to whole blocks."""
        spans: list[tuple[int, int]] = []
        ids = []
        for first, stop in _runs(store, chunks):
            source, rows = store.in_text(first, stop)
            size = source.manifest.context_size
            start = max(source.first_row, int(rows[0]) // size * size)
            end = min(source.stop_row, -(-(int(rows[-1]) + 1) // size) * size)
            spans.append((start, end))
            ids.append(source.column("token_id", start, end).astype(np.int64))
        return cls(tuple(spans), np.concatenate(ids), size)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def blocks(self) -> int:
        """Blocks of which rows are shown."""
        return sum(-(-stop // self.block) - first // self.block for first, stop in self.spans)

    def places(self, rows: Ints) -> Ints:
        """Rows of the text, all of them shown, as rows of the page."""
        firsts = np.array([first for first, _ in self.spans])
        before = np.cumsum([0, *(stop - first for first, stop in self.spans)])
        span = np.searchsorted(firsts, rows, side="right") - 1
        found: Ints = rows - firsts[span] + before[span]
        return found

    def ends(self, rows: Ints) -> tuple[Ints, Ints]:
        """The rows of the text from which, and up to which, the block of each row is shown."""
        firsts, stops = (np.array(ends) for ends in zip(*self.spans, strict=True))
        span = np.searchsorted(firsts, rows, side="right") - 1
        start = rows // self.block * self.block
        return np.maximum(start, firsts[span]), np.minimum(start + self.block, stops[span])

    def files(self, vocabulary: Vocabulary) -> Iterator[tuple[str, bytes]]:
        """The files of the page, by path."""
        numbers = vocabulary.numbers(self.ids)
        for part, some in enumerate(in_parts(numbers, PART)):
            coded = column(numbers[some], vocabulary.kind)
            yield f"data/text/{part:03}.js", script("text", part, coded)


def _runs(store: Readable, chunks: Sequence[int]) -> list[tuple[int, int]]:
    """The rows of chunks, those of neighbours joined."""
    runs: list[tuple[int, int]] = []
    for first, stop in map(store.rows_of_chunk, chunks):
        if runs and runs[-1][1] == first:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((first, stop))
    return runs
