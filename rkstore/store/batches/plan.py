"""Which rows form which batch: a seeded order, and the chunks that are held out.

Pure arithmetic on row numbers; no activation is read. The order depends on the plan alone, so a run
that is resumed, or that reads with more threads, sees the same batches. What is shuffled are rows,
or groups of rows that stay together (``orders.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.orders import Groups, groups_of
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
        batch_size: rows in a batch, a multiple of those in a group; the last one of an epoch may
        have fewer, and one of blocks of which rows are left out.
        seed: of the order.
        window_rows: about how many rows are shuffled together.
        left_out: rows that are passed over.
        grouped: which rows stay together, with ``left_out`` taken into account; by default each
        is alone.
    """

    row_ranges: tuple[tuple[int, int], ...]
    batch_size: int
    seed: int = 0
    window_rows: int = WINDOW_ROWS
    left_out: LeftOut = ALL_KEPT
    grouped: Groups | None = None

    @cached_property
    def groups(self) -> Groups:
        """The groups that are shuffled."""
        return self.grouped or Groups(missing=self.left_out)

    @property
    def groups_per_batch(self) -> int:
        """Groups in a batch."""
        return self.batch_size // self.groups.size

    @cached_property
    def rows(self) -> int:
        """Rows in an epoch; one that is in two pairs counts twice."""
        if not len(self.groups.left_out.rows):
            return self._groups * self.groups.size
        of_chunks = (self.groups.within(*rows) for rows in self.row_ranges)
        return sum(self.groups.rows_in(groups) for groups in of_chunks)

    @cached_property
    def _groups(self) -> int:
        """Groups in an epoch."""
        return sum(self.groups.count(*rows) for rows in self.row_ranges)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, a short last one included."""
        return -(-self._groups // self.groups_per_batch)

    def rows_before(self, batch: int) -> int:
        """Rows in all batches before this one; the last batch of an epoch may be short."""
        epochs, more = divmod(batch, self.batches_per_epoch)
        if not len(self.groups.left_out.rows):
            return epochs * self.rows + min(more * self.batch_size, self.rows)
        return epochs * self.rows + sum(len(rows) for rows in islice(self.batches(epochs), more))

    def windows(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The chunks of each window of an epoch, and its groups in the order in which they are
        read.

        Chunks are indices into ``row_ranges``. Each group is in the window of the chunk of the row
        that it is known by; the other chunks that its rows are in are among those of the window.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.row_ranges))
        longest = max(stop - start for start, stop in self.row_ranges)
        size = max(1, self.window_rows // longest)
        for first in range(0, len(order), size):
            chunks = order[first : first + size]
            groups = np.concatenate([self.groups.within(*self.row_ranges[i]) for i in chunks])
            yield self._reaching(chunks, groups), generator.permutation(groups)

    def _reaching(self, chunks: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """These chunks, and those that the groups reach into."""
        if self.groups.size == 1:
            return chunks
        starts = np.array([start for start, _ in self.row_ranges])
        ascending = np.argsort(starts)
        places = np.searchsorted(starts[ascending], self.groups.rows(groups), side="right") - 1
        return np.concatenate([chunks, np.setdiff1d(ascending[places], chunks)])

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Row ids of each batch of an epoch."""
        groups = np.concatenate([groups for _, groups in self.windows(epoch)])
        for start in range(0, len(groups), self.groups_per_batch):
            yield self.groups.rows(groups[start : start + self.groups_per_batch])


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
    *,
    order: str = "rows",
) -> BatchPlan:
    """A plan over some chunks of a store.

    Args:
        left_out: rows that are passed over; :func:`rkstore.left_out` finds those of special tokens.
        order: ``rows`` in any order; ``pairs``, each row after the one before it in its document,
            so that rows ``0, 2, …`` of a batch are the earlier ones; ``sequences``, whole blocks
            with their rows in order (``orders.py``). A batch of pairs needs an even size, one of
            blocks a multiple of ``context_size``.

    Raises:
        BadInput: there are no rows; a small part may have no chunk to train on, or none held out;
            or no pair or block, or the batch size does not fit them.
    """
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no chunk to draw rows from in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
    ranges = tuple(store.rows_of_chunk(chunk) for chunk in chunks)
    if all(len(left_out.within(*rows)) == rows[1] - rows[0] for rows in ranges):
        raise BadInput(f"every row of these chunks of {store.where} is left out")
    grouped = groups_of(store, chunks, order, batch_size, left_out)
    return BatchPlan(ranges, batch_size, seed, left_out=left_out, grouped=grouped)
