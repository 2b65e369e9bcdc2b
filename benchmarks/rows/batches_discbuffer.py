"""Shuffled batches of a compressed store against random rows of an uncompressed HDF5 file."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import h5py
    import torch
    from harness import synthetic
    from harness.batches import bound, random_rows, rate, shuffled

    seeds = itertools.count()
    batches = bench.size(8, 2)
    with h5py.File(synthetic.contiguous_file(bench)) as file:
        buffer = file["tensor"]

        def at_random() -> Iterator[Any]:
            for rows in random_rows(len(buffer), batches, next(seeds)):
                yield torch.tensor(buffer[rows.tolist()], dtype=torch.float32)

        store = synthetic.store(bench)
        yield Sides(shuffled(store), rate(at_random), lambda: bound(store))


ROW = Row(
    name="batches_discbuffer",
    what="The same batches",
    against="DiscBuffer: random rows of a contiguous, uncompressed HDF5 dataset",
    unit="rows/s",
    target=Target("at least", 4.0),
    how="DiscBuffer of the cross-layer transcoder's training code keeps dataset 'tensor' open and "
    "answers an index with torch.tensor(buffer[index], dtype=float32). Here it is given 4,096 "
    "random rows at once, sorted, which is faster for h5py than one at a time, and warm files. "
    "Eight batches a repetition; ours as in batches_saelens.",
    floor="Theirs is one hyperslab a row in one thread, and a copy; from a warm cache it need not "
    "decode anything. Ours decompresses, decodes and puts rows in their places: the note has the "
    "first two alone, that of batches_uncompressed the last, and one after the other they come to "
    "what is measured, 247,000 rows/s.",
    sides=sides,
)
