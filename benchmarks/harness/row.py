"""What one row of the benchmark is, and how a function in ``rows/`` becomes one.

A row compares two things that are measured in the same run, one after the other, again and
again: only their ratio is a result, because a machine has good and bad minutes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# On every side of every row.
THREADS = 2


class NotMeasured(Exception):
    """A row cannot be measured here; the message is the reason that the table gives."""


@dataclass(frozen=True)
class Bench:
    """Where rows put their files, and whether they are only to show that they work."""

    work: Path
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """The full size, or the quick one."""
        return quick if self.quick else full


Side = Callable[[], float]
"""Runs one repetition and returns its figure, in the row's unit."""


@dataclass(frozen=True)
class Sides:
    """The two things to be compared, ready to run."""

    ours: Side
    theirs: Side
    notes: Callable[[], list[str]] = list
    """Sentences with other measurements, called after the last repetition."""


@dataclass(frozen=True)
class Target:
    """What ours ÷ theirs must be."""

    direction: Literal["at least", "at most"]
    ratio: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.ratio if self.direction == "at least" else ratio <= self.ratio

    def __str__(self) -> str:
        return f"{'≥' if self.direction == 'at least' else '≤'} {self.ratio:.4g}"


@dataclass(frozen=True)
class Row:
    """One comparison: what it is, its target, and how its two sides are made."""

    name: str
    what: str
    against: str
    unit: str
    """Of the figures of both sides."""
    target: Target
    how: str
    """How it is measured: what is timed, and what is not on either side."""
    floor: str
    """What the best possible result would be, and what bounds this one if it is missed."""
    sides: Callable[[Bench], AbstractContextManager[Sides]]
    """Prepares both sides, and cleans up after them.

    Raises:
        NotMeasured: something that the row needs is not available here.
    """
    repetitions: int = 5
    """Of each side; 1 for what is counted and not timed."""
    device: bool = False
    """Whether it needs a CUDA device."""


ROWS: dict[str, Row] = {}
"""All rows by name, in the order in which they are defined."""

Preparation = Callable[[Bench], Iterator[Sides]]


def compared(
    *,
    what: str,
    against: str,
    unit: str,
    target: Target,
    how: str,
    floor: str,
    repetitions: int = 5,
    device: bool = False,
) -> Callable[[Preparation], Preparation]:
    """Make a row of a generator that yields its two sides; the row has the function's name."""

    def add(prepare: Preparation) -> Preparation:
        name, sides = prepare.__name__, contextmanager(prepare)
        row = Row(name, what, against, unit, target, how, floor, sides, repetitions, device)
        ROWS[name] = row
        return prepare

    return add
