"""Which rows of a batch are in which window of chunks."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rkstore.store.batches.plan import BatchPlan

Part = Callable[[int], NDArray[np.int64]]
"""Gives for a batch of so many rows the places, ascending, of those that are wanted."""


@dataclass(frozen=True)
class Piece:
    """The rows of a batch in one window: their ids, and their places in the batch."""

    window: tuple[int, int]
    """Epoch and number."""
    chunks: NDArray[np.int64]
    rows: NDArray[np.int64]
    first: int
    last: bool
    """Whether these are the last rows of the window."""


def pieces_of(plan: BatchPlan, start: int) -> Iterator[list[Piece]]:
    """The pieces of batch ``start`` and of all later ones."""
    epoch, batch = divmod(start, plan.batches_per_epoch)
    while True:
        skip, batch = batch * plan.groups_per_batch, 0
        pieces: list[Piece] = []
        room, first = plan.groups_per_batch, 0
        for number, (chunks, groups) in enumerate(plan.windows(epoch)):
            at, skip = min(skip, len(groups)), max(0, skip - len(groups))
            while at < len(groups):
                taken = groups[at : at + room]
                at, room = at + len(taken), room - len(taken)
                rows, last = plan.groups.rows(taken), at == len(groups)
                pieces.append(Piece((epoch, number), chunks, rows, first, last))
                first += len(rows)
                if not room:
                    yield pieces
                    pieces, room, first = [], plan.groups_per_batch, 0
        if pieces:
            yield pieces
        epoch += 1


def cut(pieces: list[Piece], part: Part) -> tuple[list[Piece], int]:
    """The pieces with some of their rows, and how many there were."""
    whole = sum(len(piece.rows) for piece in pieces)
    places, found = part(whole), []
    for piece in pieces:
        a, b = np.searchsorted(places, [piece.first, piece.first + len(piece.rows)])
        rows = piece.rows[places[a:b] - piece.first]
        found.append(replace(piece, rows=rows, first=int(a)))
    return found, whole


@dataclass(frozen=True)
class Coming:
    """The chunks of the windows of some batches, in order."""

    plan: BatchPlan
    chunk_rows: int
    start: int
    stop: int | None
    step: int

    def __iter__(self) -> Iterator[int]:
        begun = None
        count = None if self.stop is None else max(0, self.stop - self.start)
        for pieces in itertools.islice(pieces_of(self.plan, self.start), 0, count, self.step):
            for piece in pieces:
                if piece.window != begun:
                    begun = piece.window
                    for chunk in piece.chunks:
                        yield self.plan.row_ranges[chunk][0] // self.chunk_rows
