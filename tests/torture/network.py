"""Pulls, reads and pushes over lines and from servers that are bad in some thirty ways.

Each ends as if nothing had happened, or is refused in one sentence and finished when the line is
good again. No wrong byte is put in place or read, and nothing is lost of what was there.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from jobs import Job, Network
from line import OF_BYTES, Bytes, Line
from tally import Tallies, Tally
from web_faults import OF_A_RANGE, OF_READING, READING, WRITING, Asked, Web

from rkstore.errors import RkstoreError
from rkstore.store.files import LOCK

REFUSED = "connections refused"

# On a mixed line: each fault, and of how many answers.
MIXED = "5 % drops, 5 % truncations, 2 % flips"
OFTEN = {"drop amid the body": 0.05, "cut, without a length": 0.05, "a flipped bit": 0.02}

# How much is bad: the first request for each file, one request in five, or every one.
MEASURES = ("first", "some", "all")

# Seconds for which connections are refused, and bytes before a line of bytes goes bad.
A_WHILE, LATEST = {"first": 0.05, "some": 0.2, "all": 2.0}, 20_000


def network(
    root: Path, wanted: int, seed: int = 0, kinds: int | None = None, s3: bool = True
) -> Tallies:
    """Let every job meet every fault that it can meet, so many times each.

    And let pulls finish over a line on which one answer in eight is bad.

    Args:
        kinds: only so many faults of each job, drawn at random.
    """
    net, rng = Network(root), random.Random(seed)
    found: Tallies = {}
    with net.served(s3):
        for job in [job for job in net.jobs() if s3 or "S3" not in job.name]:
            known = cases(job)
            for kind in known if kinds is None else rng.sample(known, min(kinds, len(known))):
                for number in range(wanted):
                    name = f"{job.name} {kind} {number}".replace(" ", "-").replace("/", "-")
                    drawn = random.Random(f"{seed} {name}")
                    measure = drawn.choice(MEASURES) if wanted == 1 else MEASURES[number % 3]
                    line = _bad(job.line, kind, measure, drawn)
                    _try(root / name, job, line, found.setdefault(kind, Tally()), measure)
        tally = found[MIXED] = Tally()
        for number in range(3 * wanted):
            line = _mixed(net.web, f"{seed} {number}")
            _try(root / f"mixed-{number}", net.mixed(), line, tally, "")
        tally.lost += ["one was refused"] * tally.refused
    return found


def cases(job: Job) -> list[str]:
    """The faults that a job may meet."""
    if isinstance(job.line, Bytes):
        return [REFUSED, *OF_BYTES]
    # What asks S3 waits a minute for a server that is silent.
    reading = [name for name in READING if "S3" not in job.name or name != "silence"]
    return [REFUSED, *reading, *(WRITING if job.writes else ())]


def _try(
    here: Path, job: Job, line: AbstractContextManager[None], tally: Tally, measure: str
) -> None:
    """Do a job while its line is bad, and then, if need be, while it is good."""
    here.mkdir()
    where = f"{here.name}, {measure}"
    job.begin(here)
    before, done = job.line.met, False
    with line:
        try:
            job.attempt(here)
            done = True
        except RkstoreError as error:
            if not str(error) or "\n" in str(error):
                tally.unsaid.append(f"{where}: {error!r}")
        except Exception as error:
            tally.unsaid.append(f"{where}: {type(error).__name__}: {str(error)[:300]}")
    if job.line.met == before:  # it was not asked for anything that could be spoilt
        return
    tally.tried += 1
    tally.survived += done
    tally.refused += not done
    if wrong := job.wrong(here, done):
        tally.wrong.append(f"{where}: {wrong}")
    try:
        job.attempt(here)
        unfinished = job.right(here)
    except Exception as error:
        unfinished = f"run again, {type(error).__name__}: {str(error)[:300]}"
    if unfinished:
        tally.lost.append(f"{where}: {unfinished}")


@contextmanager
def _bad(line: Line, kind: str, measure: str, rng: random.Random) -> Iterator[None]:
    """A line with one kind of fault."""
    if kind == REFUSED:
        line.met += 1
        line.refuse(A_WHILE[measure])
        try:
            yield
        finally:
            line.mend()
    elif isinstance(line, Bytes):
        line.fault, line.after = OF_BYTES[kind], rng.randrange(LATEST)
        line.left = {"first": 1, "some": rng.randint(2, 3), "all": 10**9}[measure]
        try:
            yield
        finally:
            line.fault = None
    elif isinstance(line, Web):
        first = 2 if kind in OF_A_RANGE else 1
        seed = rng.random()

        def spoilt(asked: Asked, number: int) -> str:
            writes = asked.command in ("PUT", "POST", "DELETE")
            if writes != (kind in WRITING) and (kind in WRITING or kind in OF_READING):
                return ""
            # Otherwise it would be the only file that meets this.
            if kind == "acknowledged, and not written" and measure == "some" and LOCK in asked.path:
                return ""
            drawn = random.Random(f"{seed} {asked.path} {number}").random()
            bad = {"first": number <= first, "some": drawn < 0.2, "all": True}[measure]
            return kind if bad else ""

        with _spoiling(line, spoilt, seed):
            yield


@contextmanager
def _mixed(line: Web, seed: str) -> Iterator[None]:
    """A line on which one answer in eight is bad."""

    def spoilt(asked: Asked, number: int) -> str:
        drawn = random.Random(f"{seed} {asked.path} {number}").random()
        for kind, share in OFTEN.items():
            if drawn < share:
                return kind
            drawn -= share
        return ""

    with _spoiling(line, spoilt, seed):
        yield


@contextmanager
def _spoiling(line: Web, spoilt: Callable[[Asked, int], str], seed: object) -> Iterator[None]:
    """A line whose faults depend on a request, and on how often that was sent before."""
    counts: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def choose(asked: Asked) -> str:
        with lock:
            counts[asked.command, asked.path] += 1
            return spoilt(asked, counts[asked.command, asked.path])

    line.rng, line.seen, line.choose = random.Random(f"{seed}"), [], choose
    try:
        yield
    finally:
        line.choose = lambda _: ""
