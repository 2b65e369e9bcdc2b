"""Two processes write to one place at once.

One succeeds and the other is refused in one sentence; what is there in the end is what the first
would have written alone. Two that write the same may both succeed, one after the other.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apart
import numpy as np
from conftest import make_manifest, make_values, write_store
from processes import Command
from tally import Tallies, Tally
from works import HOOK, Files, placed

BUCKET = "place"

# Seconds by which one may begin later than the other: a command takes about as long.
APART = 0.05

Words = Sequence[object]
Choose = Callable[[str], Words]
"""The words of a command, from the place where it is to write."""


Start = Callable[..., Command]
"""Starts a command: its words, where it runs, what it does first, where its cache is."""


def _start(
    environment: dict[str, object],
    words: Words,
    here: Path,
    first: Callable[[], object] = lambda: None,
    cache: Path | None = None,
) -> Command:
    return Command(words, here, first, environment | {"RKSTORE_CACHE": cache or here / "cache"})


@dataclass(frozen=True)
class Contest:
    """Two commands that want the same place."""

    name: str
    commands: tuple[Choose, Choose]
    url: str = ""
    """Under which the places are; empty for ``out`` in a directory of their own."""
    alike: bool = False
    """Whether both write the same."""


def writers(root: Path, wanted: int, seed: int = 0, s3: bool = True) -> Tallies:
    """Let two commands begin at once, so many times for each kind of place."""
    rng, found = random.Random(seed), {}
    with _servers(root, s3) as (urls, environment):
        for contest in _contests(root, urls):
            if "S3" in contest.name and not s3:
                continue
            here = root / contest.name.replace(" ", "-")
            start = partial(_start, environment)
            found[contest.name] = tally = Tally()
            right = [_alone(here / f"alone-{n}", contest, n, start) for n in range(2)]
            for number in range(wanted):
                _compete(here / str(number), contest, right, rng, tally, start)
    return found


@contextmanager
def _servers(root: Path, with_s3: bool) -> Iterator[tuple[dict[str, str], dict[str, object]]]:
    """Where pushes go, by a name for it, and the variables with which they get there."""
    home = root / "home"
    with ExitStack() as stack:
        s3 = stack.enter_context(apart.s3()) if with_s3 else 0
        sftp = stack.enter_context(apart.sftp(home))
        environment = apart.s3_environment(s3) | {"HOME": home}
        if with_s3:
            apart.make_bucket(BUCKET, environment)
        at = f"sftp://me:secret@127.0.0.1:{sftp}{root}/sftp"
        yield {"S3": f"s3://{BUCKET}", "SFTP": at, "a directory": ""}, environment


def _contests(root: Path, urls: dict[str, str]) -> Iterator[Contest]:
    stores = []
    for codec in ("int8", "float16"):
        manifest = make_manifest(codec=codec, rows=64, shard_rows=32, sites={HOOK: 12})
        values = make_values(manifest)
        stores.append(root / f"store-{codec}")
        write_store(stores[-1], manifest, values)
    np.save(root / "acts.npy", values[HOOK])
    one, other = stores
    for place, url in urls.items():
        yield Contest(f"pushes to {place}", (_push(one), _push(other)), url)
    yield Contest("pushes of one store to S3", (_push(one), _push(one)), urls["S3"], alike=True)

    brought = ["import", root / "acts.npy", "--from", "npy", "--hook-name", HOOK]
    brought += ["--context-size", 8, "--shard-rows", 32, "--out"]
    eight, sixteen = (
        lambda out, codec=codec: [*brought, out, "--codec", codec] for codec in ("int8", "float16")
    )
    yield Contest("imports", (eight, sixteen))
    yield Contest("imports of one file", (eight, eight), alike=True)
    yield Contest("pulls of two stores", (_pull(one), _pull(other)))

    trained = ["train", "--store", one, "--layer", 0, "--d-sae", 24, "--k", 4, "--warmup", 2]
    trained += ["--steps", 8, "--batch-size", 16, "--checkpoint-every", 2, "--name", "x", "--out"]
    yield Contest(
        "trainings of one name",
        (lambda out: [*trained, out, "--seed", 0], lambda out: [*trained, out, "--seed", 1]),
    )
    exported = ["export", one, "--to", "npy", "--out"]
    yield Contest(
        "exports",
        (lambda out: [*exported, out], lambda out: [*exported, out, "--dtype", "float16"]),
    )


def _push(store: Path) -> Choose:
    return lambda place: ["push", store, place]


def _pull(store: Path) -> Choose:
    return lambda place: ["pull", store, "--out", place]


def _place(here: Path, contest: Contest) -> str:
    here.mkdir(parents=True)
    return f"{contest.url}/{here.parent.name}/{here.name}" if contest.url else "out"


def _found(here: Path, contest: Contest, place: str, start: Start) -> Files:
    """What is at a place; from a URL, what is pulled from there."""
    if contest.url:
        copied = start(["pull", place, "--out", "out"], here)
        assert copied.wait() == 0, copied.said
    return placed(here / "out")


def _alone(here: Path, contest: Contest, which: int, start: Start) -> Files:
    """What one of the commands leaves if nobody else is there."""
    place = _place(here, contest)
    command = start(contest.commands[which](place), here)
    assert command.wait() == 0, command.said
    return _found(here, contest, place, start)


def _compete(
    here: Path,
    contest: Contest,
    right: list[Files],
    rng: random.Random,
    tally: Tally,
    start: Start,
) -> None:
    place = _place(here, contest)
    gate, holds = os.pipe()

    def wait(seconds: float) -> None:
        os.close(holds)
        os.read(gate, 1)  # until nobody holds it
        time.sleep(seconds)

    same_machine = rng.random() < 0.5
    started = []
    for n, choose in enumerate(contest.commands):
        cache = here / f"machine-{0 if same_machine else n}"
        begin = partial(wait, rng.choice([0, rng.random() * APART]))
        started.append(start(choose(place), here, begin, cache))
    os.close(gate)
    os.close(holds)
    ended = [command.wait() for command in started]
    tally.tried += 1
    tally.refused += 2 - ended.count(0)
    where = f"{contest.name} {here.name}"
    for command, status in zip(started, ended, strict=True):
        if status and (complaint := command.complaint()):
            tally.unsaid.append(f"{where}: {complaint}")
    if ended.count(0) not in ((1, 2) if contest.alike else (1,)):
        said = [command.said[-300:] for command in started]
        tally.lost.append(f"{where}: they ended with {ended}: {said}")
    elif _found(here, contest, place, start) != right[ended.index(0)]:
        tally.wrong.append(f"{where}: what is there is not what was written")
    else:
        tally.survived += 1
