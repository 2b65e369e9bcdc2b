"""Shuffled batches of a store against rows that something else reads, from memory and disk."""

import itertools
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch
from harness import synthetic
from harness.batches import bound, copying, random_rows, rate, shuffled
from harness.cold import against_float16, throttled
from harness.peer import peer, python_of
from harness.row import Bench, Sides, Target, compared


@compared(
    what="Shuffled float32 batches of 4,096 × 3,072 from the default store, page cache warm",
    against="SAELens' ActivationsStore on its Arrow cache, in order, not shuffled",
    unit="rows/s",
    target=Target("at least", 1.0),
    how="65,536 rows of random numbers through a GELU. Ours reads every row twice, in a different "
    "order each time, checked and decoded; the store stays open between repetitions. Theirs is "
    "get_raw_llm_batch with as many rows a batch, once through the cache that "
    "rkstore export --to saelens writes.",
    floor="Theirs copies uncompressed float32 out of the page cache; ours checks, decompresses, "
    "decodes and shuffles. Ours is bound by decoding on two cores and one copy to put the rows in "
    "order.",
)
def batches_saelens(bench: Bench) -> Iterator[Sides]:
    python = python_of("saelens")
    root, cache = synthetic.store(bench), synthetic.saelens_cache(bench)
    shape = (synthetic.SITE, synthetic.CONTEXT, synthetic.WIDTH)
    sizes = (synthetic.rows_of(bench), synthetic.BATCH_ROWS)

    def notes() -> list[str]:
        ours, theirs = (synthetic.bytes_under(path) for path in (root, cache))
        return [
            f"A pass reads {ours / 1e6:,.0f} MB of ours and {theirs / 1e6:,.0f} MB of theirs, "
            f"{theirs / ours:.2f} times as much."
        ]

    with peer(bench, python, "saelens_batches.py", cache, *shape, *sizes) as theirs:
        yield Sides(shuffled(root), theirs, notes)


@compared(
    what="The same batches",
    against="h5py on a gzip-compressed dataset, in order, not shuffled",
    unit="rows/s",
    target=Target("at least", 10.0),
    how="The rows of batches_saelens as float32 in HDF5, gzip at h5py's default level, chunks of "
    "512 rows as in the store. Theirs reads the first half of the file in slices of 4,096 rows, "
    "ours as in batches_saelens.",
    floor="gzip decompresses in one thread under HDF5's lock, and float32 hardly compresses: "
    "theirs is bound by that, ours by decoding on two cores.",
)
def batches_h5py(bench: Bench) -> Iterator[Sides]:
    path = synthetic.gzip_file(bench)
    rows = bench.size(synthetic.rows_of(bench) // 2, synthetic.BATCH_ROWS)

    def in_order() -> Iterator[Any]:
        with h5py.File(path) as file:
            for start in range(0, rows, synthetic.BATCH_ROWS):
                yield file["tensor"][start : start + synthetic.BATCH_ROWS]

    def notes() -> list[str]:
        stored, ours = (synthetic.bytes_under(p) for p in (path, synthetic.store(bench)))
        return [f"The HDF5 file has {stored / 1e6:,.0f} MB, the store {ours / 1e6:,.0f} MB."]

    yield Sides(shuffled(synthetic.store(bench)), rate(in_order), notes)


@compared(
    what="The same batches",
    against="DiscBuffer: random rows of a contiguous, uncompressed HDF5 dataset",
    unit="rows/s",
    target=Target("at least", 4.0),
    how="DiscBuffer of the cross-layer transcoder's training code keeps dataset 'tensor' open and "
    "answers an index with torch.tensor(buffer[index], dtype=float32). Here it is given 4,096 "
    "random rows at once, sorted, which is faster for h5py than one at a time, and a warm cache. "
    "Eight batches a repetition; ours as in batches_saelens.",
    floor="Theirs is one hyperslab a row in one thread, and a copy; from a warm cache it need not "
    "decode anything. Ours decompresses, decodes and puts rows in their places: the note gives the "
    "first two, that of batches_uncompressed the last, and in sequence they take what is measured, "
    "247,000 rows/s.",
)
def batches_discbuffer(bench: Bench) -> Iterator[Sides]:
    seeds = itertools.count()
    batches = bench.size(8, 2)
    with h5py.File(synthetic.contiguous_file(bench)) as file:
        buffer = file["tensor"]

        def at_random() -> Iterator[Any]:
            for rows in random_rows(len(buffer), batches, next(seeds)):
                yield torch.tensor(buffer[rows.tolist()], dtype=torch.float32)

        store = synthetic.store(bench)
        yield Sides(shuffled(store), rate(at_random), lambda: bound(store))


@compared(
    what="Shuffled batches from a float32 store without compression, page cache warm",
    against="np.memmap: 4,096 random rows at a time of a file of raw float32",
    unit="rows/s",
    target=Target("at least", 0.9),
    how="The rows of batches_saelens. Theirs permutes all rows and gathers them batch by batch "
    "with an index array, the simplest code for it; ours verifies its checksums in the first pass, "
    "which is not counted. On this machine theirs varies between 330,000 and 650,000 rows/s from "
    "run to run, and the ratio between 0.6 and 1.4.",
    floor="Both copy each row from the page cache to the batch, so 1.0 in one thread; more only if "
    "several threads copy faster than one. Ours copies through a few rows in the cache, because "
    "the rows of a chunk are scattered over the batch.",
)
def batches_uncompressed(bench: Bench) -> Iterator[Sides]:
    shape = (synthetic.rows_of(bench), synthetic.WIDTH)
    mapped = np.memmap(synthetic.float32_file(bench), np.float32, "r", shape=shape)
    generator = np.random.default_rng(0)
    batches = shape[0] // synthetic.BATCH_ROWS
    permutations = (generator.permutation(shape[0]) for _ in itertools.count())

    def gather() -> Iterator[Any]:
        for rows in next(permutations).reshape(batches, -1):
            yield mapped[rows]

    store = synthetic.store(bench, "float32", "none")
    yield Sides(shuffled(store), rate(gather), lambda: copying(mapped))


@compared(
    what="Shuffled batches from the default store, nothing of it in the page cache",
    against="The same rows in order from a file of raw float16, just as cold",
    unit="rows/s",
    target=Target("at least", 1.1),
    how="The rows of batches_saelens, one pass a repetition, each side in its own process. Before "
    "each pass all its files are synced and dropped from the page cache, by "
    "posix_fadvise and, where that is allowed, /proc/sys/vm/drop_caches; opening the store is "
    "timed. Both return float32. Caches of the hypervisor or the disk cannot be dropped: the note "
    "says how much came through the block layer and how fast.",
    floor="Ours reads fewer bytes but decodes them: on a disk faster than two cores can decode, "
    "the ratio measures decoding and not reading.",
)
def batches_cold(bench: Bench) -> Iterator[Sides]:
    return against_float16(bench)


BYTES_PER_SECOND = 300_000_000


@compared(
    what="The same from a disk of 300 MB/s",
    against="The same file of raw float16, from the same disk",
    unit="rows/s",
    target=Target("at least", 2.3),
    how="As batches_cold, both processes in a control group that reads at most "
    "300 MB/s (blkio.throttle.read_bps_device, or io.max), except for a burst at the beginning: "
    "network storage is about as fast; the note gives the actual rate. It needs permission to make "
    "a control group.",
    floor="The ratio of the bytes read, 16 bits a value over those of the default codec, as long "
    "as decoding keeps up with the disk. Our pass takes half a second: opening the store and "
    "decoding the last window, which cannot be hidden, is an eighth of it.",
)
def batches_throttled(bench: Bench) -> Iterator[Sides]:
    with throttled(bench.work, BYTES_PER_SECOND) as group:
        yield from against_float16(bench, group)
