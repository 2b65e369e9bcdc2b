"""``rkstore harvest`` is killed with ``kill -9`` at random instants and run again, each time.

In the end its files must be those of a harvest that nobody disturbed.
"""

import contextlib
import mmap
import os
import random
import select
import shutil
import signal
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import tree, write_model, write_text
from processes import in_child, wait_for

# What a writer does to a disk, as Python's audit events name it.
MOMENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass(frozen=True)
class Kill:
    """Where a harvest was when it died."""

    shards: int
    """Shards that were recorded."""
    moment: int
    """Files opened to write, renamed, removed or cut by then."""
    doing: str
    """The last of them."""


@dataclass
class Kills:
    """What became of the harvests that were killed."""

    landed: list[Kill] = field(default_factory=list)
    too_late: int = 0
    """Harvests that were done before their kill."""
    finished: int = 0
    """Stores that were finished after their kills and compared."""
    different: list[str] = field(default_factory=list)
    """Files that were not those of an undisturbed harvest."""

    @property
    def by_shard(self) -> dict[int, int]:
        """Kills by the number of shards recorded at that instant."""
        return dict(sorted(Counter(kill.shards for kill in self.landed).items()))


class Watched:
    """A harvest in a child, which tells what it is doing to its store, and can be killed."""

    def __init__(self, arguments: list[str], out: Path, call_at: int) -> None:
        self.out = out
        self._board = mmap.mmap(-1, 4096)  # shared with the child
        self._bell, ring = os.pipe()
        self.child = in_child(lambda: self._harvest(arguments, call_at, ring))
        os.close(ring)

    def _harvest(self, arguments: list[str], call_at: int, ring: int) -> None:
        os.close(self._bell)
        count, inside = 0, str(self.out)

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event == "open" and bool(given[2] & (os.O_WRONLY | os.O_RDWR))
            if not (writes or event in MOMENTS) or not str(given[0]).startswith(inside):
                return
            count += 1
            doing = f"{event} {str(given[0]).removeprefix(inside)}".encode()[:4000]
            self._board[: 8 + len(doing)] = struct.pack("<II", count, len(doing)) + doing
            if count == call_at:
                os.write(ring, b".")

        sys.addaudithook(watch)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        from rkstore.cli import cli

        cli(arguments, standalone_mode=False)

    def kill(self, delay: float) -> bool:
        """Wait for its call, then that many seconds, and kill it; whether it was still alive."""
        select.select([self._bell], [], [])
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        return self.finish() == -signal.SIGKILL

    def finish(self) -> int:
        """Its exit status."""
        status = wait_for(self.child)
        os.close(self._bell)
        return status

    def state(self) -> Kill:
        """How far it came."""
        moment, length = struct.unpack("<II", self._board[:8])
        journal = self.out / "shards.jsonl"
        shards = journal.read_bytes().count(b"\n") if journal.exists() else 0
        return Kill(shards, moment, self._board[8 : 8 + length].decode(errors="replace"))


def kills(root: Path, wanted: int, seed: int = 0, **options: Any) -> Kills:
    """Kill harvests of a tiny model until that many kills have landed.

    Each attempt is the same command on what the one before left. When a store is complete,
    it is compared and the next attempt begins another. Call it in a process without threads.
    """
    import torch  # noqa: F401  # here once, and not in every child
    import transformer_lens.model_bridge  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    import rkstore.harvest.run  # noqa: F401

    text, model = root / "story.txt", root / "model"
    write_text(text)
    assert wait_for(in_child(lambda: write_model(model, text.read_text("utf-8")))) == 0
    usual = {"model": model, "text": text, "layers": "all", "tokens": 384, "context_size": 16}
    usual |= {"shard_rows": 64, "batch_size": 3, "codec": "int8"}
    arguments = ["harvest"]
    for name, value in (usual | options).items():
        arguments += ["--" + name.replace("_", "-"), str(value)]

    def harvest(out: Path, call_at: int = 0) -> Watched:
        return Watched([*arguments, "--out", str(out)], out, call_at)

    whole = harvest(root / "whole")
    started = time.monotonic()
    assert whole.finish() == 0, "the harvest fails undisturbed"
    moments, expected = whole.state().moment, tree(root / "whole")
    rng, found = random.Random(seed), Kills()
    # Time between two moments, were they evenly spread.
    pace = (time.monotonic() - started) / moments

    def compare(out: Path) -> None:
        files = tree(out)
        names = sorted(files.keys() | expected.keys())
        found.different += [
            f"{out.name}/{name}" for name in names if files.get(name) != expected.get(name)
        ]
        found.finished += 1
        shutil.rmtree(out)

    while len(found.landed) < wanted:
        out = root / f"killed-{found.finished}"
        attempt = harvest(out, rng.randint(1, max(1, moments // 3)))
        if attempt.kill(rng.random() * pace):
            found.landed.append(attempt.state())
        else:
            found.too_late += 1
            compare(out)
    out = root / f"killed-{found.finished}"
    assert harvest(out).finish() == 0, f"{out} cannot be finished"
    compare(out)
    return found
