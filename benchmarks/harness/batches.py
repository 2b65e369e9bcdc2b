"""Shuffled batches of a store against rows that something else reads."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import rkstore
from harness.row import THREADS, Side
from harness.synthetic import BATCH_ROWS

# A training run reads the store many times over; the first window of a pass is not prefetched.
EPOCHS = 2


def shuffled(root: Path) -> Side:
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
        f"{1e3 * decoding:.1f} ms to decode them (once, behind the last repetition): with "
        f"{THREADS} cores and nothing else to do that is {BATCH_ROWS / least:,.0f} rows/s."
    ]
