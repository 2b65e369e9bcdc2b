"""What runs on a CUDA device: its bus, batches that come over it, harvests and training steps."""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import rkstore
from harness import synthetic
from harness.harvests import gpt2_directory
from harness.row import Bench, Side
from rkstore.harvest.run import Harvest, prepare
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.batches.device import read_to_device
from rkstore.training.run import Run
from rkstore.training.step import step

DEVICE = "cuda"
BATCHES, STEPS = 40, 20

# Of a batch in bfloat16.
BYTES = 2 * synthetic.BATCH_ROWS * synthetic.WIDTH


def repeated(work: Callable[[], object], times: int = STEPS) -> Side:
    """Seconds of one of several times."""

    def repetition() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / times

    return repetition


def bus() -> float:
    """GB/s of copies of a batch from pinned memory."""
    here = torch.ones(BYTES // 2, dtype=torch.bfloat16, pin_memory=True)
    there = torch.empty_like(here, device=DEVICE)
    return BYTES / repeated(lambda: there.copy_(here, non_blocking=True), BATCHES)() / 1e9


def batches(root: Path) -> Side:
    """GB/s of shuffled batches of a store, as if they were bfloat16."""
    store = rkstore.open(root)
    seeds = itertools.count()

    def repetition() -> float:
        plan = rkstore.plan_batches(store, range(store.chunks), synthetic.BATCH_ROWS, next(seeds))
        given = read_to_device(store, [store.site()], plan, DEVICE)
        next(given)  # the first window is not prefetched
        return BYTES / repeated(lambda: next(given), BATCHES)() / 1e9

    return repetition


def reading_alone(root: Path) -> list[str]:
    """How fast all cores check and decompress chunks, each into memory of its own, and nothing
    else."""
    store, threads = rkstore.open(root), os.cpu_count() or 1
    site, shape = store.site(), (store.manifest.chunk_rows, synthetic.WIDTH)
    held = [np.empty(shape, store.codec.dtype) for _ in range(threads)]

    def some(thread: int) -> None:
        for chunk in range(thread, store.chunks, threads):
            store.stored_chunk(site, chunk, held[thread])

    def whole(pool: ThreadPoolExecutor) -> float:
        began = time.perf_counter()
        list(pool.map(some, range(threads)))
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        whole(pool)
        rate = 2 * store.rows * synthetic.WIDTH / whole(pool) / 1e9
    return [f"{threads} threads that only check and decompress the chunks reach {rate:.1f} GB/s."]


def prepared(bench: Bench, layers: str) -> Harvest:
    """``mlp.hook_post`` of some layers of GPT-2's shape, in bfloat16."""
    tokens = bench.size(131_072 if layers != "all" else 32_768, 1024)
    return prepare(
        HarvestSettings(
            model=str(gpt2_directory(bench)),
            dataset="python",
            layers=layers,
            tokens=tokens,
            dtype="bfloat16",
            device=DEVICE,
            out=str(bench.work / "harvest-cuda"),
        )
    )


def forward(harvest: Harvest) -> Side:
    """Tokens/s of the model alone, to the last site."""
    ids, size, sites = harvest.blocks.ids, harvest.batch_size, list(harvest.manifest.sites)

    def whole() -> None:
        for start in range(0, len(ids), size):
            harvest.model.computed(ids[start : start + size], sites)

    seconds = repeated(whole, 1)
    return lambda: ids.size / seconds()


def stepping(run: Run) -> Side:
    """Seconds of a step without the reading of its batch."""
    batch = next(run.reading.batches(run.settings.batch_size, 0, device=DEVICE))
    rows = run.reading.rows(batch, DEVICE)
    return repeated(lambda: step(run, rows))
