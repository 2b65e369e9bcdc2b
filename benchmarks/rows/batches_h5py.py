"""Shuffled batches of a compressed store against compressed HDF5, read in order."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import h5py
    from harness import synthetic
    from harness.batches import rate, shuffled

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


ROW = Row(
    name="batches_h5py",
    what="The same batches",
    against="h5py on a gzip-compressed dataset, in order, not shuffled",
    unit="rows/s",
    target=Target("at least", 10.0),
    how="The rows of batches_saelens as float32 in HDF5, gzip at h5py's default level, chunks of "
    "512 rows as in the store. Theirs reads the first half of the file in slices of 4,096 rows, "
    "ours as in batches_saelens.",
    floor="gzip decompresses in one thread under HDF5's lock, and float32 hardly compresses: "
    "theirs is bound by that, ours by decoding on two cores.",
    sides=sides,
)
