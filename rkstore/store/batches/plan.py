"""Which rows form which batch: a seeded order, and the chunks that are held out.

Pure arithmetic on row numbers; nothing is read. The order depends on the plan alone, so a run
that is resumed, or that reads with more threads, sees the same batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.readable import Readable

# One chunk in ten is held out.
HELD_OUT_EVERY = 10

# Rows in a shuffle window: 50 MB of int8 at GPT-2's 3,072 dimensions.
WINDOW_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which rows form which batch.

    Args:
        row_ranges: first row, and one past the last, of each chunk to draw from, or of a part of
        it.
        batch_size: rows in a batch; the last one of an epoch may have fewer.
        seed: of the order.
        window_rows: about how many rows are shuffled together.
        left_out: rows that are passed over.
    """

    row_ranges: tuple[tuple[int, int], ...]
    batch_size: int
    seed: int = 0
    window_rows: int = WINDOW_ROWS
    left_out: LeftOut = ALL_KEPT

    @cached_property
    def rows(self) -> int:
        """Rows in an epoch."""
        return sum(
            stop - start - len(self.left_out.within(start, stop)) for start, stop in self.row_ranges
        )

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, a short last one included."""
        return -(-self.rows // self.batch_size)

    def rows_before(self, batch: int) -> int:
        """Rows in all batches before this one; the last batch of an epoch may be short."""
        epochs, more = divmod(batch, self.batches_per_epoch)
        return epochs * self.rows + min(more * self.batch_size, self.rows)

    def windows(self, epoch: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The chunks of each window of an epoch, and its rows in the order in which they are read.

        Chunks are indices into ``row_ranges``.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.row_ranges))
        longest = max(stop - start for start, stop in self.row_ranges)
        size = max(1, self.window_rows // longest)
        windows = []
        for first in range(0, len(order), size):
            chunks = order[first : first + size]
            rows = np.concatenate([self.left_out.kept(*self.row_ranges[chunk]) for chunk in chunks])
            windows.append((chunks, generator.permutation(rows)))
        return windows

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Row ids of each batch of an epoch."""
        rows = np.concatenate([rows for _, rows in self.windows(epoch)])
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]


def split_chunks(store: Readable) -> tuple[list[int], list[int]]:
    """Chunks to train on and chunks held out, the same for every user of a store.

    One chunk in ten is held out (one of all, if the store has fewer than ten). Whole
    chunks, because neighbouring rows come from the same sentence. In a part of a store a
    chunk is held out exactly if it is in the whole, so either list may be empty there.

    Raises:
        BadInput: the store has a single chunk.
    """
    if store.chunks < 2:
        raise BadInput(
            f"the store at {store.where} has {store.rows} rows, too few to hold any out: "
            f"harvest more than {store.manifest.chunk_rows} tokens"
        )
    every = min(HELD_OUT_EVERY, store.chunks)
    here = store.chunk_range
    held_out = [chunk for chunk in here if chunk % every == every - 1]
    return [chunk for chunk in here if chunk % every != every - 1], held_out


def plan_batches(
    store: Readable,
    chunks: Sequence[int],
    batch_size: int,
    seed: int = 0,
    left_out: LeftOut = ALL_KEPT,
) -> BatchPlan:
    """A plan over some chunks of a store.

    Args:
        left_out: rows that are passed over; :func:`rkstore.left_out` finds those of special tokens.

    Raises:
        BadInput: there are no rows; a small part may have no chunk to train on, or none held out.
    """
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no chunk to draw rows from in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
    ranges = tuple(store.rows_of_chunk(chunk) for chunk in chunks)
    plan = BatchPlan(ranges, batch_size, seed, left_out=left_out)
    if not plan.rows:
        raise BadInput(f"every row of these chunks of {store.where} is left out")
    return plan
