"""Training steps, how long they wait, and what they read: all that the benchmark knows of training.

``rkstore.training.train.train_all`` runs as it is; only the source of its batches is watched, or
replaced.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from numpy.typing import NDArray

from harness import synthetic
from harness.row import Bench, Side, Sides
from rkstore.store.batches.assemble import Batch, read_batches
from rkstore.store.codecs import Encoded
from rkstore.store.store import Store
from rkstore.training import reading
from rkstore.training.run import Run, prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.step import step as train_step
from rkstore.training.train import train_all

D_IN, D_SAE, BATCH = 768, 6144, 2048

# So many that a benchmark never reaches the end, where the learning rate is zero.
STEPS = 100_000


def step(bench: Bench, dictionary: str, **options: Any) -> tuple[Side, Run]:
    """Seconds of one step of a run, all but the reading of its batch; and the run."""
    settings = TrainSettings(
        store=str(synthetic.store(bench, width=D_IN)),
        dictionary=dictionary,
        d_sae=bench.size(D_SAE, 512),
        batch_size=BATCH,
        steps=STEPS,
        **options,
    )
    run = prepare(settings)
    batch = next(run.reading.batches(settings.batch_size, settings.seed))
    return seconds(lambda: train_step(run, run.reading.rows(batch, settings.device))), run


def five_products(bench: Bench, dtype: torch.dtype = torch.float32) -> Side:
    """Seconds of what a dense step cannot do without, into memory that is there already:
    encode, decode, and the gradients of decoder, code and encoder."""
    d_sae = bench.size(D_SAE, 512)
    x, W_enc, W_dec, f = (
        torch.randn(shape, dtype=dtype)
        for shape in ((BATCH, D_IN), (d_sae, D_IN), (d_sae, D_IN), (BATCH, d_sae))
    )
    pre, back, gradient = torch.empty_like(f), torch.empty_like(x), torch.empty_like(W_dec)

    def products() -> None:
        torch.mm(x, W_enc.T, out=pre)
        torch.mm(f, W_dec, out=back)
        torch.mm(f.T, x, out=gradient)
        torch.mm(x, W_dec.T, out=pre)
        torch.mm(f.T, x, out=gradient)

    return seconds(products)


def against_products(bench: Bench, dictionary: str, **options: Any) -> Iterator[Sides]:
    """A step, and its five products alone."""
    ours, run = step(bench, dictionary, **options)

    def notes() -> list[str]:
        batch, width = run.settings.batch_size, run.dictionary.d_sae
        code = run.scratch.take("pre", (batch, width), torch.float32, torch.device("cpu"))
        share = run.dictionary.select(code).count_nonzero().item() / code.numel()
        return [f"In the last step {share:.1%} of the latents were on."]

    yield Sides(ours, five_products(bench), notes)


def seconds(work: Callable[[], None]) -> Side:
    """How long something takes."""

    def repetition() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return repetition


@dataclass(frozen=True)
class Timed:
    """Some steps of a training run, from the arrival of its first batch to that of its last."""

    waited: float
    """Seconds spent waiting for batches."""
    seconds: float
    """All seconds."""


def timed(
    store: Path, d_sae: int, steps: int, source: Callable[..., Iterator[Batch]] = read_batches
) -> Timed:
    """Train a dictionary for that many steps and one more, and time it between its batches.

    Args:
        source: what hands out the batches, in place of ``read_batches``.
    """
    return timed_together(store, steps, [{"d_sae": d_sae, "init": "random"}], source)


def timed_together(
    store: Path | str,
    steps: int,
    options: Sequence[Mapping[str, Any]],
    source: Callable[..., Iterator[Batch]] = read_batches,
) -> Timed:
    """The same of dictionaries with these options, trained in one pass.

    The first batch, which every run waits for once, is not counted; writing the checkpoint
    is not either.
    """
    beside = store.parent if isinstance(store, Path) else None
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
        tempfile.TemporaryDirectory(dir=beside) as out,
        mock.patch.object(reading, "read_batches", watched),
    ):
        train_all(
            [TrainSettings(store=str(store), steps=steps + 1, out=out, **one) for one in options]
        )
    waits = [there - before for before, there in zip(asked[1:], given[1:], strict=True)]
    return Timed(sum(waits[:steps]), given[steps] - given[0])


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """A function that returns how many chunks all stores have read since the block began."""
    # Chunks are read in several threads; a step of ``count`` cannot be interrupted.
    numbers, real = itertools.count(), Store.stored_chunk

    def counting(store: Store, hook_name: str, chunk: int, *out: NDArray[Any]) -> Encoded:
        next(numbers)
        return real(store, hook_name, chunk, *out)

    with mock.patch.object(Store, "stored_chunk", counting):
        yield lambda: next(numbers)
