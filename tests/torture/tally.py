"""What came of one kind of disturbance, counted in the same way everywhere."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

# Where a tally says that something failed.
FAILED = ("wrong", "lost", "unsaid")


@dataclass
class Tally:
    """Attempts that were disturbed in one way."""

    tried: int = 0
    survived: int = 0
    """Ended as if nothing had happened, with the right bytes."""
    refused: int = 0
    """Gave up with one sentence, or were killed; run again, they ended with the right bytes."""
    wrong: list[str] = field(default_factory=list)
    """Other bytes than were written: put in place, or read."""
    lost: list[str] = field(default_factory=list)
    """Something that was recorded is gone, or running again does not finish the work."""
    unsaid: list[str] = field(default_factory=list)
    """Ended in a traceback, or in more or less than one sentence."""

    @property
    def failed(self) -> list[str]:
        """Everything that must not have happened, in words."""
        return [f"{key}: {line}" for key in FAILED for line in getattr(self, key)]


Tallies = dict[str, Tally]
"""By the name of the disturbance, or of the work that was disturbed."""


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of several tallies."""
    found = Tally()
    for tally in tallies:
        for key, value in vars(tally).items():
            setattr(found, key, getattr(found, key) + value)
    return found


def report_of(tallies: Tallies) -> dict[str, Any]:
    """Tallies as JSON."""
    return {name: asdict(tally) for name, tally in tallies.items()}


def sentences(title: str, tallies: Tallies) -> Iterator[str]:
    """Tallies, to be read by people."""
    summed = total(tallies.values())
    yield (
        f"{title:10} {summed.tried:,} of {len(tallies)} kinds: {summed.survived:,} survived, "
        f"{summed.refused:,} refused; {len(summed.wrong)} wrong, {len(summed.lost)} lost, "
        f"{len(summed.unsaid)} without a sentence"
    )
    for name, tally in tallies.items():
        yield f"           {name}: {tally.tried} tried, {tally.survived} survived"
