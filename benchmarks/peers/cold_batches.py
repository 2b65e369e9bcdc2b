"""One pass over rows that are on the disk and nowhere else, in rows/s.

python cold_batches.py store|float16 PATH BATCH_ROWS D_IN [CGROUP]

``store`` reads shuffled batches of a store, ``float16`` a file of raw numbers in order; both hand
out float32. With a control group, the process first joins it: its bounds then hold for all it
reads. This runs in rkstore's own environment, in a process of its own so that nothing is mapped
or cached when a pass begins.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from answer import answer

import rkstore

DROP = Path("/proc/sys/vm/drop_caches")


def drop_from_cache(path: Path) -> None:
    """Make sure that a file, or every file under a directory, has to come from the disk."""
    for file in [path, *path.rglob("*")]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    if os.access(DROP, os.W_OK):
        DROP.write_text("1")


def from_store(path: Path, batch_rows: int) -> Iterator[np.ndarray]:
    """Every row once, shuffled."""
    store = rkstore.open(path)
    plan = rkstore.plan_batches(store, range(store.chunks), batch_rows)
    site = store.site()
    batches = rkstore.read_batches(store, [site], plan)
    for batch in itertools.islice(batches, plan.batches_per_epoch):
        yield batch.x[site]


def from_float16(path: Path, batch_rows: int, d_in: int) -> Iterator[np.ndarray]:
    """Every row once, in order."""
    with path.open("rb") as file:
        while len(x := np.fromfile(file, np.float16, batch_rows * d_in)):
            yield x.astype(np.float32).reshape(-1, d_in)


def bytes_fetched() -> int:
    """What this process has had fetched from a disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def main() -> None:
    kind, path, batch_rows, d_in = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    if len(sys.argv) > 5:
        Path(sys.argv[5], "cgroup.procs").write_text(str(os.getpid()))

    def one_pass() -> float:
        drop_from_cache(path)
        before, began, rows = bytes_fetched(), time.perf_counter(), 0
        batches = (
            from_store(path, batch_rows)
            if kind == "store"
            else from_float16(path, batch_rows, d_in)
        )
        for x in batches:
            rows += len(x)
        seconds = time.perf_counter() - began
        fetched = bytes_fetched() - before
        print(f"{kind}: {fetched / 1e6:.0f} MB from the disk in {seconds:.2f} s", file=sys.stderr)
        return rows / seconds

    answer(one_pass)


if __name__ == "__main__":
    main()
