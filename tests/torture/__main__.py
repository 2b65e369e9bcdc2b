"""What a store must stand before it is trusted: kills, flipped bits, and forgery.

    make torture
    python tests/torture --kills 50 --flips 200 --minutes 10

Each is described in the file of its name.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

# The small stores and the tiny model are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1]))

from flips import flips
from forgeries import forgeries
from kills import kills


@click.command()
@click.option("--kills", "kill_count", default=50, show_default=True, help="Kills that must land.")
@click.option("--flips", "flip_count", default=200, show_default=True, help="Bits to flip.")
@click.option("--minutes", default=10.0, show_default=True, help="How long to forge stores.")
@click.option("--forgeries", "forged", type=int, help="Forge that many stores instead.")
@click.option("--seed", default=0, show_default=True, help="Of every random choice.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for a program.")
def main(
    kill_count: int, flip_count: int, minutes: float, forged: int | None, seed: int, as_json: bool
) -> None:
    """Kill harvests, flip bits and forge stores, and say what became of them."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rkstore-torture-") as name:
        root = Path(name)
        if kill_count:
            killed = kills(root, kill_count, seed)
            report["kills"] = asdict(killed) | {"by_shard": killed.by_shard}
        if flip_count:
            report["flips"] = asdict(flips(root, flip_count, seed))
        if forged is not None:
            report["forgeries"] = asdict(forgeries(root, wanted=forged, seed=seed))
        elif minutes:
            report["forgeries"] = asdict(forgeries(root, seconds=60 * minutes, seed=seed))
    if as_json:
        click.echo(json.dumps(report))
    else:
        for line in _sentences(report):
            click.echo(line)
    bad = [report.get(part, {}).get(key) for part, key in BAD]
    sys.exit(1 if any(bad) else 0)


# Where a report says that something failed.
BAD = [("kills", "different"), ("flips", "missed"), ("flips", "wrong"), ("forgeries", "bad")]


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
    for part_name, key in BAD:
        for line in report.get(part_name, {}).get(key, ()):
            yield f"{part_name}, {key}: {line}"


if __name__ == "__main__":
    main()
