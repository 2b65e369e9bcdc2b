"""Store → batches: a seeded order of rows that is planned first and read afterwards.

The plan is pure arithmetic: which rows form batch ``n`` depends on the plan alone,
so a run can be taken up at any batch and no number of threads changes the order.
Each epoch visits every row exactly once: chunks in a random order, the rows of a
window of chunks shuffled among themselves.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store import Store

# One chunk in ten is held out.
HELD_OUT_EVERY = 10

# Rows shuffled among themselves: 200 MB of float32 at GPT-2's 3,072 dimensions.
WINDOW_ROWS = 16_384


@dataclass(frozen=True)
class Batch:
    """Some rows of a store: ``rows`` int64 ``(n,)``, and for each site float32 ``(n, d_in)``."""

    rows: NDArray[np.int64]
    x: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class BatchPlan:
    """Which rows form which batch.

    Args:
        row_ranges: first row, and the row behind the last, of each chunk to draw from.
        batch_size: rows in a batch; the last one of an epoch may have fewer.
        seed: of the order.
        window_rows: how many rows are shuffled among themselves, about.
    """

    row_ranges: tuple[tuple[int, int], ...]
    batch_size: int
    seed: int = 0
    window_rows: int = WINDOW_ROWS

    @cached_property
    def rows(self) -> int:
        """Rows in an epoch."""
        return sum(stop - start for start, stop in self.row_ranges)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    def windows(self, epoch: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The chunks of each window of an epoch, and its rows in the order they come out.

        Chunks are indices into ``row_ranges``.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.row_ranges))
        longest = max(stop - start for start, stop in self.row_ranges)
        size = max(1, self.window_rows // longest)
        windows = []
        for first in range(0, len(order), size):
            chunks = order[first : first + size]
            rows = np.concatenate([np.arange(*self.row_ranges[chunk]) for chunk in chunks])
            windows.append((chunks, generator.permutation(rows)))
        return windows

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Row ids of each batch of an epoch."""
        rows = np.concatenate([rows for _, rows in self.windows(epoch)])
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]


def split_chunks(store: Store) -> tuple[list[int], list[int]]:
    """Chunks to train on and chunks held out, for every user of a store the same.

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


def plan_batches(store: Store, chunks: Sequence[int], batch_size: int, seed: int = 0) -> BatchPlan:
    """A plan over some chunks of a store.

    Raises:
        BadInput: there are none, as a small part may have none of one kind.
    """
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no chunk to draw rows from in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
    return BatchPlan(tuple(store.rows_of_chunk(chunk) for chunk in chunks), batch_size, seed)


def read_batches(
    store: Store, hook_names: Sequence[str], plan: BatchPlan, start: int = 0
) -> Iterator[Batch]:
    """Read batch ``start`` and all that follow, epoch after epoch, for ever.

    The next window is decoded in other threads while the current one is handed out,
    so two windows are in memory at a time.

    Raises:
        BadInput: a site is not in the store.
        DamagedStore: a chunk is not what was written.
    """
    for name in hook_names:
        store.check_site(name)
    epoch, batch = divmod(start, plan.batches_per_epoch)
    with ThreadPoolExecutor(2) as pool:
        while True:
            yield from _read_epoch(store, hook_names, plan, epoch, batch, pool)
            epoch, batch = epoch + 1, 0


def read_rows(
    store: Store, hook_names: Sequence[str], chunks: Sequence[int], batch_size: int
) -> Iterator[Batch]:
    """Read the rows of some chunks once, in order."""
    pending: list[Batch] = []
    for chunk in chunks:
        rows = np.arange(*store.rows_of_chunk(chunk))
        pending.append(Batch(rows, {name: store.chunk(name, chunk) for name in hook_names}))
        if sum(len(batch.rows) for batch in pending) >= batch_size:
            yield _joined(pending)
            pending = []
    if pending:
        yield _joined(pending)


def _read_epoch(
    store: Store,
    hook_names: Sequence[str],
    plan: BatchPlan,
    epoch: int,
    batch: int,
    pool: ThreadPoolExecutor,
) -> Iterator[Batch]:
    windows = plan.windows(epoch)
    skip = batch * plan.batch_size
    while windows and skip >= len(windows[0][1]):
        skip -= len(windows.pop(0)[1])
    left: Batch | None = None
    loading = _load(store, hook_names, plan, windows[0], pool) if windows else None
    for i in range(len(windows)):
        assert loading is not None
        window = loading.result()
        if i + 1 < len(windows):
            loading = _load(store, hook_names, plan, windows[i + 1], pool)
        if skip:
            window, skip = _part(window, skip, len(window.rows)), 0
        if left is not None:
            window = _joined([left, window])
        whole = len(window.rows) // plan.batch_size * plan.batch_size
        for first in range(0, whole, plan.batch_size):
            yield _part(window, first, first + plan.batch_size)
        left = _part(window, whole, len(window.rows))
    if left is not None and len(left.rows):
        yield left


def _load(
    store: Store,
    hook_names: Sequence[str],
    plan: BatchPlan,
    window: tuple[NDArray[np.int64], NDArray[np.int64]],
    pool: ThreadPoolExecutor,
) -> Future[Batch]:
    """Decode the chunks of a window and put its rows in their order."""
    chunks, rows = window
    ranges = [plan.row_ranges[chunk] for chunk in chunks]

    def work() -> Batch:
        # Where each chunk's rows begin when the chunks lie one behind another.
        firsts = np.array([start for start, _ in ranges])
        lengths = np.array([stop - start for start, stop in ranges])
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        by_row = np.argsort(firsts)
        chunk = by_row[np.searchsorted(firsts[by_row], rows, side="right") - 1]
        places = begins[chunk] + rows - firsts[chunk]
        x = {}
        for name in hook_names:
            decoded = np.concatenate([store.read(name, start, stop) for start, stop in ranges])
            x[name] = decoded[places]
        return Batch(rows, x)

    return pool.submit(work)


def _part(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(batch.rows[start:stop], {name: x[start:stop] for name, x in batch.x.items()})


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(
        np.concatenate([batch.rows for batch in batches]),
        {name: np.concatenate([batch.x[name] for batch in batches]) for name in batches[0].x},
    )
