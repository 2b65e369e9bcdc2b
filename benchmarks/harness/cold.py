"""Rows that have to come from the disk: the store against raw float16, each in its own process."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from sys import executable

from harness import synthetic
from harness.peer import peer
from harness.row import Bench, NotMeasured, Sides

PROGRAM = "cold_batches.py"
GROUP = "rkstore-bench"


def against_float16(bench: Bench, *control_group: Path) -> Iterator[Sides]:
    """Shuffled batches of the default store, and the same rows in order from raw float16."""
    size = (synthetic.BATCH_ROWS, synthetic.WIDTH)
    root, file = synthetic.store(bench), synthetic.float16_file(bench)
    log = bench.work / f"{Path(PROGRAM).stem}.log"

    def notes() -> list[str]:
        lines = log.read_text("utf-8").splitlines()
        last = [next(line for line in reversed(lines) if line.startswith(k)) for k in KINDS]
        return [f"Last repetition: {'; '.join(last)} (read_bytes of /proc/self/io)."]

    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(peer(bench, executable, PROGRAM, kind, path, *size, *control_group))
            for kind, path in zip(KINDS, (root, file), strict=True)
        )
        yield Sides(ours, theirs, notes)


KINDS = ("store", "float16")


@contextmanager
def throttled(path: Path, bytes_per_second: int) -> Iterator[Path]:
    """A control group whose processes read no faster from the disk that the path is on.

    Raises:
        NotMeasured: the kernel has none, or does not let us make one.
    """
    cgroups = Path("/sys/fs/cgroup")
    first = cgroups / "blkio" if (cgroups / "blkio").is_dir() else cgroups
    group = first / GROUP
    try:
        group.mkdir()
        try:
            if first == cgroups:
                (group / "io.max").write_text(f"{_disk_of(path)} rbps={bytes_per_second}")
            else:
                limit = group / "blkio.throttle.read_bps_device"
                limit.write_text(f"{_disk_of(path)} {bytes_per_second}")
            yield group
        finally:
            _remove(group)
    except OSError as error:
        raise NotMeasured(f"no control group can throttle the disk here: {error}") from None


def _disk_of(path: Path) -> str:
    """Device number of the whole disk, which is what can be throttled."""
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    whole = device.parent if (device / "partition").exists() else device
    return (whole / "dev").read_text().strip()


def _remove(group: Path) -> None:
    """Remove the group, once the kernel has noticed that its last process is gone."""
    for _ in range(50):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)
    return group.rmdir()
