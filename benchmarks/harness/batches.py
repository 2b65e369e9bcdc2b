"""Shuffled batches of a store against rows that something else reads."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import rkstore
from harness.row import THREADS, Side
from harness.synthetic import BATCH_ROWS, CHUNK_ROWS
from rkstore.store.batches.assemble import GATHER_ROWS
from rkstore.store.batches.plan import WINDOW_ROWS

# A training run reads the store many times over; the first window of a pass is not prefetched.
EPOCHS = 2


def shuffled(root: Path | str) -> Side:
    """Rows/s of shuffled batches of a store that stays open, as it does in a training run."""
    store = rkstore.open(root)
    site = store.site()
    seeds = itertools.count()

    def repetition() -> float:
        plan = rkstore.plan_batches(store, range(store.chunks), BATCH_ROWS, next(seeds))
        batches = rkstore.read_batches(store, [site], plan)
        began, rows = time.perf_counter(), 0
        for batch in itertools.islice(batches, EPOCHS * plan.batches_per_epoch):
            rows += len(batch.x[site])
        return rows / (time.perf_counter() - began)

    return repetition


def rate(one_pass: Callable[[], Iterator[object]]) -> Side:
    """Rows/s of something else that hands out batches of as many rows."""

    def repetition() -> float:
        began = time.perf_counter()
        batches = sum(1 for _ in one_pass())
        return batches * BATCH_ROWS / (time.perf_counter() - began)

    return repetition


def random_rows(rows: int, batches: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of batches drawn from all rows, none twice, in the order of the file."""
    order = np.random.default_rng(seed).permutation(rows)
    for start in range(0, batches * BATCH_ROWS, BATCH_ROWS):
        yield np.sort(order[start : start + BATCH_ROWS])


def bound(root: Path) -> list[str]:
    """What the parts of a batch take on one core, and so the least that a batch can take."""
    store = rkstore.open(root)
    site = store.site()
    began = time.process_time()
    chunks = [store.stored_chunk(site, i) for i in range(BATCH_ROWS // store.manifest.chunk_rows)]
    decompressed = time.process_time()
    for chunk in chunks:
        store.codec.decode(chunk)
    unpacking, decoding = decompressed - began, time.process_time() - decompressed
    least = (unpacking + decoding) / THREADS
    return [
        f"One core takes {1e3 * unpacking:.1f} ms to decompress the chunks of a batch and "
        f"{1e3 * decoding:.1f} ms to decode them (once, after the last repetition): with "
        f"{THREADS} cores and nothing else to do that is {BATCH_ROWS / least:,.0f} rows/s."
    ]


def copying(mapped: np.ndarray) -> list[str]:
    """What all threads do with nothing else to do: copy rows in order, and into their places."""
    into = [np.ones((BATCH_ROWS, mapped.shape[1]), mapped.dtype) for _ in range(THREADS)]
    by_chunk = _places(len(mapped))

    def in_order(thread: int, batch: int) -> None:
        np.copyto(into[thread], mapped[batch * BATCH_ROWS : (batch + 1) * BATCH_ROWS])

    def in_places(thread: int, batch: int) -> None:
        some = np.empty((GATHER_ROWS, mapped.shape[1]), mapped.dtype)
        for rows, places in by_chunk[batch]:
            for start in range(0, len(rows), GATHER_ROWS):
                taken = rows[start : start + GATHER_ROWS]
                found = mapped.take(taken, axis=0, out=some[: len(taken)], mode="clip")
                into[thread][places[start : start + GATHER_ROWS]] = found

    plain, scattered = _rate(in_order, len(by_chunk)), _rate(in_places, len(by_chunk))
    return [
        f"With nothing else to do, {THREADS} threads copy the same rows in order, into "
        f"preallocated memory, at {plain:,.0f} rows/s; gathered from their chunks into their "
        f"places, as a shuffled batch must be, at {scattered:,.0f} (once each, after the last "
        "repetition)."
    ]


def _places(rows: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each batch, and each chunk of the window that it is drawn from, rows and places."""
    batches = []
    for first in range(0, rows, WINDOW_ROWS):
        order = first + np.random.default_rng(first).permutation(WINDOW_ROWS)
        for batch in order.reshape(-1, BATCH_ROWS):
            chunks = range(first, first + WINDOW_ROWS, CHUNK_ROWS)
            inside = [np.flatnonzero(batch // CHUNK_ROWS == c // CHUNK_ROWS) for c in chunks]
            batches.append([(batch[places], places) for places in inside])
    return batches


def _rate(copy: Callable[[int, int], None], batches: int) -> float:
    """Rows/s of all threads together, each with its share of the batches."""

    def work(thread: int) -> None:
        for batch in range(thread, batches, THREADS):
            copy(thread, batch)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
        began = time.perf_counter()
        list(pool.map(work, range(THREADS)))
        return batches * BATCH_ROWS / (time.perf_counter() - began)
