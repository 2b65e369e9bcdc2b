"""The rows of batches_cold from a disk that is known to be slow."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target

BYTES_PER_SECOND = 300_000_000


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.cold import against_float16, throttled

    with (
        throttled(bench.work, BYTES_PER_SECOND) as group,
        against_float16(bench, group) as both,
    ):
        yield both


ROW = Row(
    name="batches_throttled",
    what="The same from a disk of 300 MB/s",
    against="The same file of raw float16, from the same disk",
    unit="rows/s",
    target=Target("at least", 2.3),
    how="As batches_cold, both processes in a control group of the kernel's that reads at most "
    "300 MB/s (blkio.throttle.read_bps_device, or io.max), a burst at the beginning excepted: "
    "network storage is about as fast; the note says what rate came of it. It "
    "takes the right to make a control group.",
    floor="The ratio of the bytes read, 16 bits a value over those of the default codec, as long "
    "as decoding keeps up with the disk. A pass of ours is over in half a second: to open the "
    "store and to decode its last window, which nothing hides, is an eighth of it.",
    sides=sides,
)
