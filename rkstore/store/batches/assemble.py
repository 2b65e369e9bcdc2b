"""Store → batches: rows read in a planned, seeded order.

The rows of batch ``n`` depend only on the plan, so a run can be resumed at any batch, and the
number of threads does not change the order. Each epoch visits every row, pair or block exactly
once: chunks in a random order, the rows of a window of chunks shuffled among themselves.
"""

import itertools
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.apart import Apart, joined
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.pieces import Coming, Part, Piece, cut, pieces_of
from rkstore.store.batches.plan import BatchPlan
from rkstore.store.batches.slots import Slots
from rkstore.store.codecs import Encoded
from rkstore.store.readable import Readable

Floats = NDArray[np.float32]

# Rows decoded at once: at GPT-2's width they fit in a megabyte of cache.
GATHER_ROWS = 64

# Batches assembled ahead, and threads that do it.
AHEAD = 3

# Windows in memory at once: one is used and the next is read, and a batch may be in both.
WINDOWS = 3
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Batch:
    """Some rows of a store: ``rows`` int64 ``(n,)``, and for each site float32 ``(n, d_in)``.

    If they are a part of a batch, ``whole`` is how many rows the batch has.
    """

    rows: NDArray[np.int64]
    x: dict[str, NDArray[np.float32]]
    whole: int | None = None


def read_batches(
    store: Readable,
    hook_names: Sequence[str],
    plan: BatchPlan,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    part: Part | None = None,
) -> Iterator[Batch]:
    """Read batch ``start`` and every ``step``-th later one before ``stop``; by default endlessly.

    Batches are counted through the epochs.

    Args:
        part: which rows of each batch to decode, if not all; the windows that they are in are read
            as a whole.

    Two windows are held in memory as stored, a quarter of float32 in int8; rows are decoded when
    their batch is assembled. Both happen in background threads, some batches ahead.

    Raises:
        BadInput: a site is not in the store.
        DamagedStore: a chunk is not what was written.
    """
    yield from read_ahead(_Decoded(store, hook_names, plan, part), start, stop, step)


def read_ahead(
    reader: "Reader[Made]", start: int = 0, stop: int | None = None, step: int = 1
) -> Iterator["Made"]:
    """What a reader makes of these batches, some ahead, in threads; see :func:`read_batches`."""
    reader.check()
    # If a program exits with batches left, the modules needed for cancelling may be unloaded; the
    # threads have ended by then.
    ending = sys.is_finalizing
    near = Coming(reader.plan, reader.chunk_rows, start, stop, step)
    with (
        reader.near(near),
        ThreadPoolExecutor(reader.threads) as pool,
        ThreadPoolExecutor(1) as own,
    ):
        ahead: deque[Future[Made]] = deque()
        try:
            count = None if stop is None else max(0, stop - start)
            coming = itertools.islice(pieces_of(reader.plan, start), count)
            for number, pieces in enumerate(reader.begun(coming, pool)):
                if number % step:
                    reader.skip(pieces)
                    continue
                ahead.append(reader.submit(pieces, pool, own if reader.apart else pool))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for threads in (own, pool):
                threads.shutdown(wait=True, cancel_futures=not ending())


def read_rows(
    store: Readable,
    hook_names: Sequence[str],
    chunks: Sequence[int],
    batch_size: int,
    left_out: LeftOut = ALL_KEPT,
) -> Iterator[Batch]:
    """Read the rows of some chunks once, in order, except those left out."""
    pending: list[Batch] = []
    read = [chunk for chunk in chunks if len(left_out.kept(*store.rows_of_chunk(chunk)))]
    with store.ahead(hook_names, read) as near:
        for chunk in read:
            rows = left_out.kept(*store.rows_of_chunk(chunk))
            x = {name: left_out.read(near, name, chunk) for name in hook_names}
            pending.append(Batch(rows, x))
            if sum(len(batch.rows) for batch in pending) >= batch_size:
                yield _joined(pending)
                pending = []
    if pending:
        yield _joined(pending)


class Window:
    """The chunks of a window, by their index in ``row_ranges``: a future for each site."""

    def __init__(self, chunks: dict[int, list[Future[Encoded]]]) -> None:
        self.chunks = chunks
        self._apart: dict[int, Apart] = {}
        self._lock = threading.Lock()

    def apart(self, site: int) -> Apart:
        """The values kept apart for all chunks, concatenated.

        Together, because finding the few values of a batch costs the same for one chunk as for
        many.
        """
        with self._lock:
            if site not in self._apart:
                parts = [futures[site].result().apart for futures in self.chunks.values()]
                self._apart[site] = joined([part for part in parts if part is not None])
            return self._apart[site]


Made = TypeVar("Made")


class Reader(ABC, Generic[Made]):
    """Reads the chunks of a window shortly before its first row is needed."""

    threads = THREADS
    apart = False
    """Whether batches are assembled in a thread of their own, so that they need not wait for
    chunks of later windows."""

    def __init__(
        self,
        store: Readable,
        hook_names: Sequence[str],
        plan: BatchPlan,
        part: Part | None = None,
    ) -> None:
        self._store, self._names, self.plan, self._part = store, hook_names, plan, part
        self._windows: dict[tuple[int, int], Window] = {}

    def begun(
        self,
        coming: Iterator[list[Piece]],
        pool: ThreadPoolExecutor,  # noqa: ARG002
    ) -> Iterator[list[Piece]]:
        """The batches that are coming; a reader may begin to read for those far ahead."""
        return coming

    @abstractmethod
    def assemble(self, pieces: list[Piece], windows: list[Window], whole: int | None) -> Made:
        """The batch of these pieces, each in its window; called in several threads.

        Args:
            whole: rows of the batch that they are a part of, if they are.
        """

    def check(self) -> None:
        """Raise BadInput unless the store has the sites, and the plan is of its chunks."""
        for name in self._names:
            self._store.check_site(name)
        size = self._store.manifest.chunk_rows
        if any(first // size != (stop - 1) // size for first, stop in self.plan.row_ranges):
            raise BadInput(f"a plan's rows must be those of chunks of {size}: use plan_batches()")

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return self._store.manifest.chunk_rows

    @contextmanager
    def near(self, chunks: Iterable[int]) -> Iterator[None]:
        """Read these chunks from where they are brought before they are needed."""
        there = self._store
        with there.ahead(self._names, chunks) as self._store:
            yield
        self._store = there

    def submit(
        self, pieces: list[Piece], pool: ThreadPoolExecutor, assembling: ThreadPoolExecutor
    ) -> Future[Made]:
        """Submit a batch for assembly; the chunks it needs are read first."""
        windows = [self.window(piece, pool) for piece in pieces]
        some, whole = (pieces, None) if self._part is None else cut(pieces, self._part)
        batch = assembling.submit(self.assemble, some, windows, whole)
        self.skip(pieces)  # submitted batches hold their references
        return batch

    def skip(self, pieces: list[Piece]) -> None:
        """Drop the windows that end with a batch."""
        for piece in pieces:
            if piece.last:
                self._windows.pop(piece.window, None)

    def window(self, piece: Piece, pool: ThreadPoolExecutor) -> Window:
        """The window of a piece; reading it begins when it is first asked for."""
        if piece.window not in self._windows:
            self._windows[piece.window] = self.open_window(piece.chunks, pool)
        return self._windows[piece.window]

    def open_window(self, chunks: NDArray[np.int64], pool: ThreadPoolExecutor) -> Window:
        """Begin to read these chunks."""
        return Window(
            {
                int(chunk): [pool.submit(self._load, name, int(chunk)) for name in self._names]
                for chunk in chunks
            }
        )

    def rows_of(self, chunk: int) -> int:
        """How many rows the chunk of this index has."""
        first, _ = self.plan.row_ranges[chunk]
        return len(range(*self._store.rows_of_chunk(first // self._store.manifest.chunk_rows)))

    def _load(self, name: str, chunk: int, out: NDArray[Any] | None = None) -> Encoded:
        first, _ = self.plan.row_ranges[chunk]
        return self._store.stored_chunk(name, first // self._store.manifest.chunk_rows, out)


class _Decoded(Reader[Batch]):
    """Decodes rows as they are put into their places."""

    def __init__(
        self, store: Readable, hook_names: Sequence[str], plan: BatchPlan, part: Part | None
    ) -> None:
        super().__init__(store, hook_names, plan, part)
        self._slots = Slots((AHEAD + 2) * len(hook_names))
        windows = WINDOWS * plan.window_rows * len(hook_names)
        self._chunks = Slots(max(1, windows // store.manifest.chunk_rows))

    def _load(self, name: str, chunk: int, out: NDArray[Any] | None = None) -> Encoded:
        if out is None:
            shape = (self.rows_of(chunk), self._store.manifest.width(name))
            out = self._chunks.take(shape, self._store.codec_of(name).dtype)
        return super()._load(name, chunk, out)

    def assemble(self, pieces: list[Piece], windows: list[Window], whole: int | None) -> Batch:
        rows = np.concatenate([piece.rows for piece in pieces])
        x = {
            name: self._slots.take((len(rows), self._store.manifest.width(name)), np.float32)
            for name in self._names
        }
        gathers = [_Gather(self._store, name) for name in self._names]
        for piece, window in zip(pieces, windows, strict=True):
            here = slice(piece.first, piece.first + len(piece.rows))
            among = self._gather(piece, window, gathers, [x[name][here] for name in self._names])
            for site, name in enumerate(self._names):
                if self._store.codec_of(name).keeps_apart:
                    window.apart(site).put(x[name][here], among)
        return Batch(rows, x, whole)

    def _gather(
        self, piece: Piece, window: Window, gathers: Sequence["_Gather"], x: Sequence[Floats]
    ) -> NDArray[np.int64]:
        """Decode the rows of a piece into their places, without the values kept apart.

        Returns:
            The index of each row in the concatenated chunks of the window.
        """
        among, before = np.empty(len(piece.rows), np.int64), 0
        for chunk, futures in window.chunks.items():
            first, stop = self.plan.row_ranges[chunk]
            places = np.flatnonzero((piece.rows >= first) & (piece.rows < stop))
            within = piece.rows[places] % self._store.manifest.chunk_rows
            among[places] = before + within
            before += self.rows_of(chunk)
            if len(places):
                for future, gather, out in zip(futures, gathers, x, strict=True):
                    gather(future.result(), within, out, places)
        return among


class _Gather:
    """Decodes some rows of a chunk into their places, through a cache-sized buffer.

    Values kept apart are not filled in.
    """

    def __init__(self, store: Readable, name: str) -> None:
        self._codec = store.codec_of(name)
        shape = (GATHER_ROWS, store.manifest.width(name))
        self._stored, self._decoded = (
            np.empty(shape, self._codec.dtype),
            np.empty(shape, np.float32),
        )

    def __call__(
        self,
        chunk: Encoded,
        within: NDArray[np.int64],
        x: Floats,
        places: NDArray[np.int64],
    ) -> None:
        for start in range(0, len(within), GATHER_ROWS):
            some = within[start : start + GATHER_ROWS]
            # With the default mode, "raise", NumPy gathers into a temporary array first.
            stored = chunk.values.take(some, axis=0, out=self._stored[: len(some)], mode="clip")
            decoded = self._codec.decode(Encoded(stored, chunk.side), self._decoded[: len(some)])
            x[places[start : start + GATHER_ROWS]] = decoded


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(
        np.concatenate([batch.rows for batch in batches]),
        {name: np.concatenate([batch.x[name] for batch in batches]) for name in batches[0].x},
    )
