"""Shuffled batches from the disk itself against half as precise rows, uncompressed, in order."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.cold import against_float16

    with against_float16(bench) as both:
        yield both


ROW = Row(
    name="batches_cold",
    what="Shuffled batches from the default store, nothing of it in the page cache",
    against="The same rows in order from a file of raw float16, just as cold",
    unit="rows/s",
    target=Target("at least", 1.1),
    how="The rows of batches_saelens, one pass a repetition, each side in a process of its own. "
    "Before each pass all its files are synced and dropped from the page cache, by "
    "posix_fadvise and, where that is allowed, /proc/sys/vm/drop_caches; opening the store is on "
    "the clock. Both hand out float32. A cache of the hypervisor's or the disk's own is beyond "
    "reach: the note says what came over the block layer and how fast.",
    floor="Ours reads fewer bytes but decodes them: on a disk that is faster than two cores "
    "decode, the ratio is that of decoding and not of reading.",
    sides=sides,
)
