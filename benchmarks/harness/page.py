"""Measurements → the table that is printed, and the page and numbers that are kept."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.measure import Measurement
from harness.row import Row
from rkstore.evaluation.report import tables

DOCS = Path(__file__).parents[2] / "docs"
PAGE, NUMBERS = DOCS / "benchmarks.md", DOCS / "benchmarks.json"

BEGINNING = """\
# Benchmarks

Every target is a ratio of two things measured in the same run: `make bench` lets the two sides
take turns, and the result is the median of ours ÷ theirs over the repetitions. The range is over
single repetitions; the figures of one side alone say more about the machine.
[benchmarks.json](benchmarks.json) has every sample, and the versions of all libraries.
"""


def table(rows: Sequence[Row], measurements: dict[str, Measurement]) -> str:
    """One line a row, as a Markdown table."""
    head = ["row", "ours", "theirs", "unit", "ours ÷ theirs", "range", "target", "met"]
    return tables.table(head, [_cells(row, measurements[row.name]) for row in rows])


def page(
    rows: Sequence[Row],
    measurements: dict[str, Measurement],
    machine: dict[str, Any],
    scale: str | None,
) -> str:
    """The whole page: table, machine, every row in words, and how it goes on with size."""
    measured = [row for row in rows if row.name in measurements]
    parts = [
        BEGINNING,
        table(measured, measurements),
        _machine(machine),
        *(_in_words(row, measurements[row.name]) for row in measured),
        *([scale] if scale else []),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def read_numbers(path: Path = NUMBERS) -> dict[str, Any]:
    """What was written by earlier runs."""
    numbers: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return numbers


def to_numbers(measurements: dict[str, Measurement]) -> dict[str, Any]:
    return {name: asdict(measurement) for name, measurement in measurements.items()}


def from_numbers(numbers: dict[str, Any]) -> dict[str, Measurement]:
    return {name: Measurement(**fields) for name, fields in numbers.get("rows", {}).items()}


def figure(number: float) -> str:
    """Three digits that matter, or all of those before the point."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _cells(row: Row, measurement: Measurement) -> list[str]:
    if measurement.reason:
        return [row.name, "", "", row.unit, "not measured", "", str(row.target), ""]
    low, high = measurement.spread
    return [
        row.name,
        figure(statistics.median(measurement.ours)),
        figure(statistics.median(measurement.theirs)),
        row.unit,
        figure(measurement.ratio),
        f"{figure(low)}–{figure(high)}" if len(measurement.ratios) > 1 else "",
        str(row.target),
        "yes" if row.target.met(measurement.ratio) else "no",
    ]


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"{machine['threads']} threads on either side. Python {machine['python']}, {versions}."
    )


def _in_words(row: Row, measurement: Measurement) -> str:
    lines = [
        f"## {row.name}",
        f"{row.what}. Against: {row.against}. Target: {row.target}.",
        f"**Measured.** {row.how}",
        f"**Floor.** {row.floor}",
    ]
    if measurement.reason:
        return "\n\n".join([*lines, f"**Not measured**: {measurement.reason}"])
    met = "met" if row.target.met(measurement.ratio) else "missed"
    low, high = measurement.spread
    repeated = (
        f"median of {len(measurement.ratios)}, {figure(low)} to {figure(high)}"
        if len(measurement.ratios) > 1
        else "counted once"
    )
    where = f" on {measurement.device}" if measurement.device else ""
    result = (
        f"**Result.** {figure(measurement.ratio)} ({repeated}), {met}, {measurement.date}{where}."
    )
    if measurement.before:
        result += f" Before: {figure(measurement.before['ratio'])}, {measurement.before['date']}."
    return "\n\n".join([*lines, " ".join([result, *measurement.notes])])
