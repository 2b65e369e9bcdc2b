"""Training steps, and how long they wait. All that the benchmark knows of the training loop.

``rkstore.training.train.train`` runs as it is; only where it gets its batches from is watched, or
replaced.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from rkstore.store.batches.assemble import Batch, read_batches
from rkstore.training import train
from rkstore.training.settings import TrainSettings


@dataclass(frozen=True)
class Timed:
    """Some steps of a training run, from its first batch in hand to its last."""

    steps: int
    waited: float
    """Seconds in asking for a batch."""
    seconds: float
    """All of them."""


def timed(
    store: Path, d_sae: int, steps: int, source: Callable[..., Iterator[Batch]] = read_batches
) -> Timed:
    """Train a dictionary for that many steps and one more, and time it between its batches.

    The first batch, which every run waits for once, is not counted; writing the checkpoint
    is not either.

    Args:
        source: what hands out the batches, in place of ``read_batches``.
    """
    asked: list[float] = []
    given: list[float] = []

    def watched(*arguments: Any, **options: Any) -> Iterator[Batch]:
        batches = source(*arguments, **options)
        while True:
            asked.append(time.perf_counter())
            batch = next(batches)
            given.append(time.perf_counter())
            yield batch

    with (
        tempfile.TemporaryDirectory(dir=store.parent) as out,
        mock.patch.object(train, "read_batches", watched),
    ):
        settings = TrainSettings(
            store=str(store), d_sae=d_sae, steps=steps + 1, init="random", out=out
        )
        train.train(settings)
    waits = [there - before for before, there in zip(asked[1:], given[1:], strict=True)]
    return Timed(steps, sum(waits[:steps]), given[steps] - given[0])
