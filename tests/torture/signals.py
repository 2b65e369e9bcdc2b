"""Commands are sent SIGINT, SIGTERM or SIGKILL at random times, and run again, each time.

Nothing that was recorded may be lost, and in the end there must be the files of one undisturbed.
"""

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tally import Tallies, Tally
from works import Work

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
STOPPED = 130


def signals(root: Path, works: Sequence[Work], wanted: int, seed: int = 0) -> Tallies:
    """Send so many signals to each work, while it runs."""
    rng, found = random.Random(seed), {}
    for work in works:
        here = root / "signals"
        found[work.name] = tally = Tally()
        work.begin(here)
        started = time.monotonic()
        assert work.finish(here) is None
        seconds = time.monotonic() - started
        while tally.tried < wanted:
            work.begin(here)
            for _ in range(rng.randint(1, 4)):
                if not _sent(work, here, rng.choice(SIGNALS), rng.random() * seconds, tally):
                    break
            if unfinished := work.finish(here):
                tally.lost.append(f"{work.name}: {unfinished}")
    return found


def _sent(work: Work, here: Path, number: int, seconds: float, tally: Tally) -> bool:
    """Start the work, and send it a signal so many seconds later; whether it ended by that."""
    before = work.left(here)
    awake, wakes = os.pipe()
    command = work.start(here, lambda: os.write(wakes, b"."))
    os.close(wakes)
    os.read(awake, 1)
    os.close(awake)
    time.sleep(seconds)
    command.end(number)
    status, after = command.wait(), work.left(here)
    where = f"{work.name}, {signal.Signals(number).name} after {seconds:.4f} s"
    tally.tried += 1
    tally.wrong += [f"{where}: {path}" for path in work.wrong(after)]
    tally.lost += [f"{where}: {path}" for path in work.lost(before, after)]
    if status == 0 or (work.once and after == work.expected):  # it was done already, or nearly
        tally.survived += 1
        return False
    tally.refused += 1
    if number == signal.SIGINT and status == STOPPED and not command.complaint():
        return True
    if status != -number:
        tally.unsaid.append(f"{where}: it ended with {status}; {command.said[-1500:]}")
    return True
