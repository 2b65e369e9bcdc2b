"""All trackers of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rkstore.training.tracking import TRACKERS
from rkstore.training.tracking.base import Callback, Tracker
from rkstore.training.tracking.jsonl import Jsonl
from rkstore.training.tracking.values import logged

if TYPE_CHECKING:
    from rkstore.training.run import Run


@contextmanager
def tracking(run: Run) -> Iterator[Sequence[Tracker]]:
    """The trackers of a run at the step where it begins, or goes on; none if it is finished."""
    with ExitStack() as open_ones:
        kinds: list[type[Tracker]] = [Jsonl, *(TRACKERS[name] for name in run.settings.track)]
        trackers: list[Tracker] = []
        for kind in [] if run.finished else kinds:
            trackers.append(kind(run))
            open_ones.callback(trackers[-1].close)
        yield trackers


def track(run: Run, trackers: Sequence[Tracker], callbacks: Sequence[Callback]) -> None:
    """Log the step that a run has just made, if it was measured, and what callbacks return."""
    measured = run.history and run.history[-1]["step"] == run.step
    values = logged(run, run.history[-1]) if measured else {}
    for callback in callbacks:
        values |= callback(run.step, run) or {}
    if values:
        for tracker in trackers:
            tracker.log(run.step, values)
