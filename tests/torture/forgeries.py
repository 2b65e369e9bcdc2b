"""Parts of a store are changed and every checksum above them is made right again.

Whatever is read must be refused in rkstore's own words or have the shape that was asked for:
no other exception, no crash, no hang, no memory out of bounds.
"""

import functools
import json
import math
import random
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from checksums import Files
from conftest import tree
from forged_arrays import of_hdf5, of_zarr
from forged_metadata import (
    of_apart,
    of_journal,
    of_manifest,
    of_metadata,
    of_part,
    of_statistics,
)
from processes import in_child, wait_for
from readings import examine
from small_stores import KINDS, replace_file, small_store

# The format's own files are where most can go wrong, so they are met twice as often.
ANYWHERE = (of_manifest, of_journal, of_statistics, of_apart, of_part, of_metadata)
FORGERIES: dict[str, tuple[Callable[[Files, random.Random], Files], ...]] = {
    "zarr": (*ANYWHERE, of_zarr, of_zarr),
    "hdf5": (*ANYWHERE, of_hdf5, of_hdf5),
}


@dataclass
class Forgeries:
    """Forged stores and what became of them."""

    done: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    """Stores that opening or verifying found fault with."""
    answered: int = 0
    """Readings that were answered in spite of it."""
    peak_bytes: int = 0
    """The most memory that any of them took, beyond what the process had."""
    bad: list[str] = field(default_factory=list)
    """Exceptions that are not rkstore's, crashes, hangs, wrong shapes, and how to make each."""


# What one forged store may cost. The stores hold a few kilobytes.
SECONDS, BYTES = 10, 256 * 2**20
# Address space is bounded as well, so that a bound that fails does not take the machine along.
ADDRESS_SPACE = 4 * 2**30
BATCH = 50


def forge(files: Files, format: str, seed: int) -> tuple[str, Files]:
    """The forgery of that number: its kind, and the files."""
    rng = random.Random(seed)
    make = rng.choice(FORGERIES[format])
    return make.__name__.removeprefix("of_"), make(files, rng)


def lay_out(root: Path, files: Files, before: Files) -> None:
    """Turn a directory of some files into one of others."""
    for path in before.keys() - files.keys():
        (root / path).unlink()
    for path, raw in files.items():
        if before.get(path) != raw:
            replace_file(root / path, raw)


def forgeries(
    root: Path, seconds: float = math.inf, wanted: float = math.inf, seed: int = 0
) -> Forgeries:
    """Forge stores until the time is over or that many are done."""
    stores = []
    for kind in KINDS:
        at = root / f"forged-{'-'.join(kind)}"
        small_store(at, kind)
        stores.append((at, kind[0], tree(at)))
    found, until = Forgeries(), time.monotonic() + seconds
    log = root / "forgeries.jsonl"
    batch = 0
    while sum(found.done.values()) < wanted and time.monotonic() < until:
        at, format, good = stores[batch % len(stores)]
        size = int(min(BATCH, wanted - sum(found.done.values())))
        numbers = range(seed + batch * BATCH, seed + batch * BATCH + size)
        log.write_bytes(b"")
        work = functools.partial(_examine_forgeries, at, format, good, numbers, log)
        status = wait_for(in_child(work))
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        if status:
            reason = "hung" if status == -signal.SIGALRM else f"ended with {status}"
            found.bad.append(f"{at.name} {entries[-1]['number']}: {reason}")
        for entry in entries:
            kind = entry.get("kind")
            if kind is None:
                continue  # the line before it was read
            found.done[kind] = found.done.get(kind, 0) + 1
            found.refused += entry["found"]
            found.answered += entry["answered"]
            found.peak_bytes = max(found.peak_bytes, entry["bytes"])
            where = f"{at.name} {entry['number']} ({kind})"
            if entry["other"] or entry["wrong"]:
                found.bad.append(f"{where}: {entry['other'] or entry['wrong']}")
            if entry["bytes"] > BYTES:
                found.bad.append(f"{where}: took {entry['bytes'] >> 20} MiB")
        shutil.rmtree(at)
        lay_out(at, good, {})
        batch += 1
    return found


def _examine_forgeries(at: Path, format: str, good: Files, numbers: range, log: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, inside C code too
    there = good
    with log.open("a") as entries:
        for number in numbers:
            print(json.dumps({"number": number}), file=entries, flush=True)
            kind, files = forge(good, format, number)
            lay_out(at, files, there)
            there = files
            before = _peak_bytes()
            signal.alarm(SECONDS)
            # A stranger's numbers may overflow: what is asked here is that nothing breaks.
            with warnings.catch_warnings(action="ignore"):
                outcome = examine(at, None)
            signal.alarm(0)
            entry = asdict(outcome) | {"number": number, "kind": kind}
            print(json.dumps(entry | {"bytes": _peak_bytes() - before}), file=entries, flush=True)


def _peak_bytes() -> int:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
