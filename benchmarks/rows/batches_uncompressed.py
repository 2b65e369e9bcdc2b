"""Shuffled batches of an uncompressed store against NumPy's own gather from a memory map."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import numpy as np
    from harness import synthetic
    from harness.batches import copying, rate, shuffled

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


ROW = Row(
    name="batches_uncompressed",
    what="Shuffled batches from a float32 store without compression, page cache warm",
    against="np.memmap: 4,096 random rows at a time of a file of raw float32",
    unit="rows/s",
    target=Target("at least", 0.9),
    how="The rows of batches_saelens. Theirs permutes all rows and gathers them batch by batch "
    "with an index array, the least that anyone can write by hand; ours has its checksums "
    "verified in the first pass, which is not counted. On the machine of this page theirs "
    "is anything between 330,000 and 650,000 rows/s, from run to run, and the ratio has come out "
    "between 0.6 and 1.4.",
    floor="Both copy each row from the page cache to the batch, so 1.0 in one thread; more only if "
    "several threads copy faster than one. Ours goes by way of a few rows in the cache, because "
    "the rows of a chunk lie scattered in the batch.",
    sides=sides,
)
