"""Measure rkstore against other tools, and report the result.

    make bench                                            # everything, under half an hour
    python benchmarks/bench.py --only harvest_fp32        # some rows; --write keeps the result
    python benchmarks/bench.py --quick                    # whether everything runs
    python benchmarks/bench.py --only step_cuda_topk --to FILE    # on a machine with a CUDA device
    python benchmarks/bench.py --add FILE                 # what was measured there, into the page

Each row is a function in ``rows/``; ``harness/row.py`` says what it has to provide.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

# Before torch is imported by anything: it asks once.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from harness.machine import machine
from harness.measure import Measurement, measure
from harness.page import (
    NUMBERS,
    PAGE,
    figure,
    from_numbers,
    page,
    read_numbers,
    table,
    to_numbers,
)
from harness.row import THREADS, Bench, Row
from harness.scaling import section
from rows import NAMES, row_named

from rkstore.store.files import write_together

BUILD = Path(__file__).parents[1] / "build"


def run(rows: list[Row], quick: bool) -> dict[str, Measurement]:
    """Measure some rows, one after another, in a directory that is gone afterwards."""
    import torch

    torch.set_num_threads(THREADS)
    BUILD.mkdir(exist_ok=True)
    measurements = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as work:
        for row in rows:
            click.echo(f"{row.name:22}", nl=False, err=True)
            found = measurements[row.name] = measure(row, Bench(Path(work), quick))
            said = f"not measured: {found.reason}" if found.reason else figure(found.ratio)
            click.echo(f"{said}  ({found.seconds:.0f} s)", err=True)
    return measurements


def write(measurements: dict[str, Measurement], **more: Any) -> None:
    """Add measurements, and whatever else is new, to the recorded numbers; rewrite the page.

    Each keeps the ratio of the one that it replaces.
    """
    numbers = read_numbers() | more
    # Of the rows without a device.
    here = numbers["machine"] if all(row_named(name).device for name in measurements) else None
    old = from_numbers(numbers)
    for name, found in measurements.items():
        if name in old and old[name].ours:
            before = {"ratio": old[name].ratio, "date": old[name].date}
            measurements = measurements | {name: replace(found, before=before)}
    # Without a CUDA device, what was measured on one stays.
    measurements = {
        name: found
        for name, found in measurements.items()
        if not (row_named(name).device and found.reason and name in old)
    }
    kept = old | measurements
    named = [row_named(name) for name in NAMES]
    numbers |= {
        "machine": here or machine(),
        "rows": to_numbers({name: kept[name] for name in NAMES if name in kept}),
    }
    scale = section(numbers["scale"]) if "scale" in numbers else None
    text = page(named, kept, numbers["machine"], scale)
    record = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    write_together({NUMBERS: record.encode(), PAGE: text.encode()})


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="This row; may be repeated.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, not how fast.")
@click.option("--to", type=click.Path(path_type=Path), help="Keep the result in this file instead.")
@click.option("--add", type=click.Path(path_type=Path), help="Keep the result of another machine.")
@click.option("--write/--no-write", "keep", default=None, help="Keep the result under docs/.")
def main(
    only: tuple[str, ...], quick: bool, to: Path | None, add: Path | None, keep: bool | None
) -> None:
    """Measure rows and print their table; all of them at full size are also written down."""
    if add:
        write(from_numbers(read_numbers(add)))
        return
    rows = [row_named(name) for name in NAMES if not only or name in only]
    if quick and keep:
        raise click.UsageError("what --quick measures is not worth keeping")
    measurements = run(rows, quick)
    click.echo(table(rows, measurements))
    for found in measurements.values():
        for line in [found.reason] if found.reason else found.notes:
            click.echo(f"{found.name}: {line}")
    if to:
        to.write_text(json.dumps({"rows": to_numbers(measurements)}, allow_nan=False))
    elif keep or (keep is None and not only and not quick):
        write(measurements)
    failed = [m for m in measurements.values() if (m.reason or "").startswith("failed")]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
