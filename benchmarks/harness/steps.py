"""One training step against the dense matrix products that it is made of."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from harness import synthetic
from harness.row import Bench, Side, Sides
from rkstore.training.run import Run, prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.step import step as train_step

D_IN, D_SAE, BATCH = 768, 6144, 2048

# So many that a benchmark never comes to their end, where the learning rate is zero.
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
