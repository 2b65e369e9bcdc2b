"""Two sides → their ratio: repetitions alternate, the median counts, the range is shown."""

import statistics
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from harness.machine import device
from harness.row import Bench, NotMeasured, Row, Sides

QUICK_REPETITIONS = 2


@dataclass(frozen=True)
class Measurement:
    """The result of one row."""

    name: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str | None = None
    """Why there are no figures."""
    date: str = ""
    seconds: float = 0.0
    """The whole row, including preparation."""
    device: str = ""
    """The accelerator it was measured on, and its libraries."""
    before: dict[str, Any] | None = None
    """Ratio and date of the result that this one replaced."""

    @property
    def ratios(self) -> list[float]:
        """Of each repetition of ours to the one of theirs that followed it."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.ratios), max(self.ratios)


def measure(row: Row, bench: Bench) -> Measurement:
    """Run a row. A failure is recorded and does not stop the others."""
    date, began = time.strftime("%Y-%m-%d"), time.perf_counter()
    ours: list[float] = []
    theirs: list[float] = []
    notes: list[str] = []
    reason, on = None, ""
    try:
        on = device() if row.device else ""
        with row.sides(bench) as sides:
            ours, theirs = alternate(sides, repetitions(row, bench))
            notes = sides.notes()
    except NotMeasured as error:
        reason = str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        reason, ours, theirs = f"failed: {type(error).__name__}: {error}", [], []
    return Measurement(
        row.name, ours, theirs, notes, reason, date, round(time.perf_counter() - began, 1), on
    )


def repetitions(row: Row, bench: Bench) -> int:
    return min(row.repetitions, QUICK_REPETITIONS) if bench.quick else row.repetitions


def alternate(sides: Sides, times: int) -> tuple[list[float], list[float]]:
    """Figures of both sides in turns; what is repeated runs once before, not counted."""
    if times > 1:
        sides.ours(), sides.theirs()
    pairs = [(sides.ours(), sides.theirs()) for _ in range(times)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
