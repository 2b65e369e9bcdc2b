"""Which rows stay together in a batch: each alone, with the token before it, or a whole block.

Rows of one group are in one batch, side by side and in the order of the text; groups are shuffled.

    rows        a row t                                     group t
    pairs       t - 1 and t, of one document and block      group t
    sequences   the rows of a block, in order               group of the block's first row

A pair is read only if both of its rows are: a row that is left out, or whose chunk is not drawn
from, has no pair on either side. A block is read only if all of its chunks are drawn from; its rows
that are left out are missing from it, and those around them are then neighbours. It may hold
several documents: the column ``document`` says where one ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.batches.kept import ALL_KEPT, NONE, LeftOut
from rkstore.store.readable import Readable

ORDERS = ("rows", "pairs", "sequences")


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of rows, each known by the number of one row.

    Args:
        offsets: its rows, relative to that one, ascending.
        every: that number is a multiple of this.
        missing: the numbers, of those, that are no group.
        left_out: rows that are not read, though their group is.
    """

    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    every: int = 1
    missing: LeftOut = ALL_KEPT
    left_out: LeftOut = ALL_KEPT

    @property
    def size(self) -> int:
        """Rows of a group of which none is left out."""
        return len(self.offsets)

    def within(self, first: int, stop: int) -> NDArray[np.int64]:
        """The groups from row ``first`` to ``stop``, ascending."""
        if self.every == 1:
            return self.missing.kept(first, stop)
        numbers = np.arange(-(-first // self.every) * self.every, stop, self.every)
        return np.setdiff1d(numbers, self.missing.within(first, stop), assume_unique=True)

    def count(self, first: int, stop: int) -> int:
        """How many groups there are from row ``first`` to ``stop``."""
        numbers = -(-stop // self.every) - -(-first // self.every)
        return numbers - len(self.missing.within(first, stop))

    def rows(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of some groups, one group after another."""
        if self.size == 1:
            return groups
        rows = (groups[:, None] + self.offsets).reshape(-1)
        return rows[~self.left_out.holds(rows)]

    def rows_in(self, groups: NDArray[np.int64]) -> int:
        """How many rows some groups have."""
        a, b = (
            np.searchsorted(self.left_out.rows, groups + edge)
            for edge in (self.offsets[0], self.offsets[-1] + 1)
        )
        return len(groups) * self.size - int((b - a).sum())


def groups_of(
    store: Readable, chunks: Sequence[int], order: str, batch_size: int, left_out: LeftOut
) -> Groups:
    """The groups of an order, one of ``ORDERS``, over some chunks of a store.

    Raises:
        BadInput: there is no such order, the batch size does not fit it, or the store has no
            group.
    """
    if order == "rows":
        return Groups(missing=left_out)
    if order == "pairs":
        if batch_size % 2:
            raise BadInput(f"--batch-size is {batch_size}: with --order pairs it must be even")
        groups = Groups(np.array([-1, 0]), missing=_alone(store, chunks, left_out))
        lacking = "no row with the row before it, of the same document"
    elif order == "sequences":
        block = store.manifest.context_size
        if batch_size % block:
            raise BadInput(
                f"--batch-size is {batch_size}: with --order sequences it must be a multiple of "
                f"{block}, the rows of a block"
            )
        missing = _broken(store, chunks, left_out)
        groups = Groups(np.arange(block), block, missing, left_out)
        lacking = f"no whole block of {block} rows"
    else:
        raise BadInput(f"--order is '{order}': choose one of {', '.join(ORDERS)}")
    if not any(groups.count(*store.rows_of_chunk(chunk)) for chunk in chunks):
        raise BadInput(f"{store.where} has {lacking}, in the chunks to draw from: use --order rows")
    return groups


def _alone(store: Readable, chunks: Sequence[int], left_out: LeftOut) -> LeftOut:
    """The rows of some chunks that are the second of no pair."""
    drawn, block, found = set(chunks), store.manifest.context_size, [NONE]
    for chunk in sorted(drawn):
        first, stop = store.rows_of_chunk(chunk)
        begin = first - (chunk - 1 in drawn)
        document, position = (store.column(n, begin, stop) for n in ("document", "position"))
        second = np.arange(begin + 1, stop)
        paired = (np.diff(document) == 0) & (np.diff(position) == 1) & (second % block != 0)
        paired &= ~left_out.holds(second) & ~left_out.holds(second - 1)
        found.append(np.setdiff1d(np.arange(first, stop), second[paired], assume_unique=True))
    return LeftOut(np.concatenate(found))


def _broken(store: Readable, chunks: Sequence[int], left_out: LeftOut) -> LeftOut:
    """The blocks that begin in some chunks, but are not whole in them or left out altogether."""
    block = store.manifest.context_size
    begin = np.arange(0, store.stop_row, block)
    starts, stops = np.array([store.rows_of_chunk(chunk) for chunk in sorted(set(chunks))]).T
    before = np.concatenate([[0], np.cumsum(stops - starts)])

    def drawn(row: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows before this one are drawn from."""
        place = np.maximum(np.searchsorted(starts, row, side="right") - 1, 0)
        within: NDArray[np.int64] = np.clip(row - starts[place], 0, (stops - starts)[place])
        return before[place] + within

    whole = drawn(begin + block) - drawn(begin) == block
    left = np.searchsorted(left_out.rows, [begin, begin + block])
    return LeftOut(begin[~whole | (left[1] - left[0] == block)])
