"""Speed and memory of stores of ten thousand, a hundred thousand and a million rows.

    make bench-scale
    python benchmarks/scale.py --quick

Every harvest and every reading is a process of its own, so that the memory of one is not that
of another. What comes out is added to docs/benchmarks.json and docs/benchmarks.md.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from harness.scaling import section

LAYER, BATCH_ROWS = 6, 4096
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (2_000, 10_000)
BUILD = Path(__file__).parents[1] / "build"
SECONDS_BETWEEN_LOOKS = 0.02


def anonymous_bytes() -> int:
    """Memory that this process has for itself now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell anonymous memory apart")


@contextmanager
def peak() -> Iterator[list[int]]:
    """The most anonymous memory seen while the block ran, as the only element of a list."""
    seen, over = [anonymous_bytes()], threading.Event()

    def look() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            seen[0] = max(seen[0], anonymous_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def harvest(out: Path, rows: int) -> dict[str, float]:
    """Harvest one layer of the demo model; tokens/s of the run, the model loaded before."""
    from rkstore.harvest.run import prepare, run
    from rkstore.harvest.settings import HarvestSettings

    settings = HarvestSettings(
        model="demo", dataset="python", layers=str(LAYER), tokens=rows, out=str(out)
    )
    with peak() as seen:
        ready = prepare(settings)
        began = time.perf_counter()
        store = run(ready)
        seconds = time.perf_counter() - began
    return {
        "rows": store.rows,
        "d_in": store.manifest.width(store.site()),
        "harvest_per_second": store.rows / seconds,
        "harvest_bytes": seen[0],
        "store_bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()),
    }


def read(root: Path, epochs: int) -> dict[str, float]:
    """Every row as often as there are epochs, shuffled."""
    import rkstore

    with peak() as seen:
        began = time.perf_counter()
        store = rkstore.open(root)
        plan = rkstore.plan_batches(store, range(store.chunks), BATCH_ROWS)
        batches = rkstore.read_batches(store, [store.site()], plan)
        for _ in itertools.islice(batches, epochs * plan.batches_per_epoch):
            pass
        seconds = time.perf_counter() - began
    return {"read_per_second": epochs * store.rows / seconds, "read_bytes": seen[0]}


def in_a_process(*words: object) -> dict[str, float]:
    """What one of the functions above returns, called in a process of its own."""
    command = [sys.executable, __file__, "--alone", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Harvest and read each size; the smallest are read several times over to last at all."""
    found = []
    BUILD.mkdir(exist_ok=True)
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=BUILD) as work:
            out = Path(work) / "store"
            size = in_a_process("harvest", out, rows)
            size |= in_a_process("read", out, max(1, max(sizes) // (2 * rows)))
            found.append(size)
            click.echo(json.dumps(size), err=True)
    return {
        "site": f"blocks.{LAYER}.mlp.hook_post",
        "d_in": int(found[0]["d_in"]),
        "batch_rows": BATCH_ROWS,
        "date": time.strftime("%Y-%m-%d"),
        "sizes": found,
    }


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, not how fast.")
@click.option("--alone", nargs=3, type=(str, Path, int), hidden=True)
def main(quick: bool, alone: tuple[str, Path, int] | None) -> None:
    """Measure stores of growing size and print their table."""
    if alone:
        what, path, number = alone
        click.echo(json.dumps((harvest if what == "harvest" else read)(path, number)))
        return
    scale = measure(QUICK_SIZES if quick else SIZES)
    click.echo(section(scale))
    if not quick:
        from bench import write

        write({}, scale=scale)


if __name__ == "__main__":
    main()
