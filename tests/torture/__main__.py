"""What a store must stand before it is trusted.

    make torture
    python tests/torture --kills 50 --flips 200 --minutes 10

Kills, flipped bits, forgery, full disks, signals, two writers, bad lines, many readers: each is
described in the file of its name. Of the amounts, 0 leaves a part out.
"""

import gc
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

# The small stores and the tiny model are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1]))

from flips import flips
from forgeries import forgeries
from full_disks import full_disks
from kills import kills
from network import network
from readers import readers
from signals import signals
from tally import FAILED, Tallies, Tally, report_of, sentences, total
from works import Work, works
from writers import writers

TALLIED = ("disks", "signals", "writers", "readers", "network")

# Where a report says that something failed.
BAD = {"kills": ("different",), "flips": ("missed", "wrong"), "forgeries": ("bad",)}

# What commands import when they run: here once, and not in every child.
IMPORTED = (
    *("torch", "torch._dynamo", "s3fs", "paramiko", "fsspec.implementations.sftp"),
    *(f"rkstore.cli.{name}" for name in ("share", "train", "evaluate", "terminal")),
    *(f"rkstore.share.{name}" for name in ("push", "pull", "exchange.importing")),
    *("rkstore.share.exchange.exporting", "rkstore.evaluation.evaluate"),
    *("rkstore.evaluation.report.figures", "rkstore.training.train"),
    *("rkstore.training.inits.calibration", "rkstore.training.ignored", "matplotlib.pyplot"),
)


@click.command()
@click.option("--kills", "kill_count", default=50, show_default=True, help="Kills that must land.")
@click.option("--flips", "flip_count", default=200, show_default=True, help="Bits to flip.")
@click.option("--minutes", default=5.0, show_default=True, help="How long to forge stores.")
@click.option("--forgeries", "forged", type=int, help="Forge that many stores instead.")
@click.option("--disks", type=int, help="Writes of each command that fail; all by default.")
@click.option("--signals", "sent", default=40, show_default=True, help="Signals to each command.")
@click.option("--pairs", default=20, show_default=True, help="Pairs of writers for each place.")
@click.option("--readers", "reading", default=8, show_default=True, help="Readers of one cache.")
@click.option("--network", "bad", default=3, show_default=True, help="Tries of each fault.")
@click.option("--faults", type=int, help="Faults of the network for each job; all by default.")
@click.option("--s3/--no-s3", default=True, help="S3 among the places: a third of the time.")
@click.option("--seed", default=0, show_default=True, help="Of every random choice.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for a program.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to that file.")
def main(seed: int, as_json: bool, out: Path | None, **amounts: Any) -> None:
    """Disturb what reads and writes stores in every way, and say what became of it."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rkstore-torture-") as name:
        for part, work in _parts(Path(name), seed, **amounts):
            started = time.monotonic()
            report[part] = work()
            click.echo(f"{part}: {time.monotonic() - started:.0f} s", err=True)
    if out:
        made = {"command": " ".join(["python tests/torture", *sys.argv[1:]])}
        out.write_text(json.dumps(made | figures(report), indent=1) + "\n", "utf-8")
    if as_json:
        click.echo(json.dumps(report))
    else:
        for line in _sentences(report):
            click.echo(line)
    sys.exit(1 if any(_failures(report)) else 0)


def _parts(
    root: Path,
    seed: int,
    *,
    kill_count: int,
    flip_count: int,
    minutes: float,
    forged: int | None,
    disks: int | None,
    sent: int,
    pairs: int,
    reading: int,
    bad: int,
    faults: int | None,
    s3: bool,
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is to be done, by name; first what forks, and last what has threads."""

    def killed() -> dict[str, Any]:
        found = kills(root, kill_count, seed)
        return asdict(found) | {"by_shard": found.by_shard}

    if kill_count:
        yield "kills", killed
    if pairs or sent or disks != 0:
        _import_all(s3)
    commands: list[Work] = works(root) if sent or disks != 0 else []
    if disks != 0:
        yield "disks", lambda: report_of(full_disks(root, commands, disks, seed))
    if sent:
        yield "signals", lambda: report_of(signals(root, commands, sent, seed))
    if pairs:
        yield "writers", lambda: report_of(writers(root / "pairs", pairs, seed, s3))
    if reading:
        yield "readers", lambda: report_of(readers(root, reading))
    if flip_count:
        yield "flips", lambda: asdict(flips(root, flip_count, seed))
    if forged != 0 and (forged or minutes):
        how: dict[str, Any] = {"wanted": forged} if forged else {"seconds": 60 * minutes}
        yield "forgeries", lambda: asdict(forgeries(root, seed=seed, **how))
    if bad:
        yield "network", lambda: report_of(network(root / "network", bad, seed, faults, s3))


def _import_all(s3: bool) -> None:
    for name in IMPORTED if s3 else [name for name in IMPORTED if name != "s3fs"]:
        importlib.import_module(name)
    gc.freeze()  # a child copies no page to collect garbage


def _tallies(part: dict[str, Any]) -> Tallies:
    return {name: Tally(**found) for name, found in part.items()}


def _failures(report: dict[str, Any]) -> Iterator[str]:
    """Everything that must not have happened, in words."""
    for part, found in report.items():
        if part in TALLIED:
            for name, tally in _tallies(found).items():
                yield from (f"{part}, {name}, {line}" for line in tally.failed)
        else:
            for key in BAD[part]:
                yield from (f"{part}, {key}: {line}" for line in found[key])


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a report."""
    shown: dict[str, Any] = {}
    for part, found in report.items():
        if part in TALLIED:
            summed = asdict(total(_tallies(found).values()))
            counts = {k: len(v) if k in FAILED else v for k, v in summed.items()}
            shown[part] = {"kinds": len(found)} | counts
        elif part == "kills":
            shown[part] = {"tried": len(found["landed"]), "wrong": len(found["different"])}
        elif part == "flips":
            bad = len(found["missed"]) + len(found["wrong"])
            shown[part] = {"tried": found["done"], "wrong": bad}
        else:
            shown[part] = {"tried": sum(found["done"].values()), "wrong": len(found["bad"])}
    return shown


def _sentences(report: dict[str, Any]) -> Iterator[str]:
    if "kills" in report:
        part = report["kills"]
        spread = ", ".join(f"{n} with {shards}" for shards, n in part["by_shard"].items())
        yield f"kills      {len(part['landed'])} landed: {spread} shards recorded"
        yield f"           {part['finished']} stores finished, each compared with one undisturbed"
    if "flips" in report:
        part = report["flips"]
        missed = len(part["missed"])
        yield f"flips      {part['done']} in {part['files']} files, {missed} not noticed"
        yield f"           readings: {part['refused']:,} refused, {part['answered']:,} right"
    if "forgeries" in report:
        part = report["forgeries"]
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(part["done"].items()))
        yield f"forgeries  {sum(part['done'].values()):,} ({kinds}), {part['refused']:,} refused"
        yield f"           at most {part['peak_bytes'] / 2**20:.0f} MiB of memory for one"
    for name in TALLIED:
        if name in report:
            yield from sentences(name, _tallies(report[name]))
    yield from _failures(report)


if __name__ == "__main__":
    main()
