"""Steps of any kind of dictionary on stored sites of any width, and their matrix products."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import synthetic
from harness.row import Bench, Side
from harness.training import STEPS, seconds
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Site
from rkstore.store.writing.writer import StoreWriter
from rkstore.training.run import Run, prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.step import step

# Of the store: what a part of each of four blocks reads, and what it writes.
READ, WRITTEN, LAYERS = "hook_mlp_in", "hook_mlp_out", "0-3"
ROWS = synthetic.SHARD_ROWS
TIMES = 10


@functools.cache
def store(bench: Bench, width: int) -> Path:
    """A store of one shard with all sites; the values at each are the same."""
    root = bench.work / f"store-sites-{width}"
    names = [f"blocks.{layer}.{hook}" for layer in range(4) for hook in (READ, WRITTEN)]
    manifest = Manifest(
        rows=ROWS,
        context_size=synthetic.CONTEXT,
        shard_rows=ROWS,
        chunk_rows=synthetic.CHUNK_ROWS,
        codec="int8",
        format="zarr",
        sites=tuple(Site(name, width) for name in names),
        source={"model": {"name": "synthetic"}},
    )
    row, x = np.arange(ROWS, dtype=np.int32), synthetic.shard(0, width)
    columns = {"token_id": row, "document": row // 128, "position": row % 128}
    with StoreWriter(root, manifest) as writer:
        writer.write_shard(dict.fromkeys(names, x), columns)
    return root


def run_of(bench: Bench, width: int, batch: int, **options: Any) -> Run:
    """A run before its first step; an SAE over one site and BatchTopK if not said otherwise."""
    usual = {"layer": "0", "hook": READ, "dictionary": "batchtopk", "init": "random"}
    if "layers" in options:
        del usual["layer"]
    settings = TrainSettings(
        store=str(store(bench, width)), batch_size=batch, steps=STEPS, **(usual | options)
    )
    return prepare(settings)


def stepping(run: Run, times: int = TIMES) -> Side:
    """Seconds of a step without the reading of its batch, mean over some."""
    batch = next(run.reading.batches(run.settings.batch_size, 0))
    return repeated(lambda: step(run, run.reading.rows(batch, "cpu")), times)


def repeated(work: Any, times: int = TIMES) -> Side:
    """Seconds of one of several times."""

    def all_times() -> None:
        for _ in range(times):
            work()

    total = seconds(all_times)
    return lambda: total() / times


def products(run: Run, **where: Any) -> tuple[Any, str]:
    """The products of a dense step, into memory that is there already; and a list of them.

    Args:
        where: ``device`` and ``dtype`` of the matrices.
    """
    n, shapes = run.settings.batch_size, list[tuple[int, int, int]]()
    for bank, _ in run.dictionary.banks:
        into, out, back = (
            (n, bank.d_in, bank.latents),
            (n, bank.latents, bank.d_out),
            (n, bank.d_out, bank.latents),
        )
        shapes += [into, out, back, (bank.latents, n, bank.d_in), (bank.latents, n, bank.d_out)]
        if run.settings.dictionary == "gated":  # the reconstruction by the gates alone
            shapes += [out, back]
        if run.dictionary.wiring.skip:
            shapes += [(n, bank.d_in, bank.d_out), (bank.d_out, n, bank.d_in)]
    given = {
        shape: (torch.randn(shape[:2], **where), torch.randn(shape[1:], **where))
        for shape in shapes
    }
    results = {shape: torch.empty(shape[0], shape[2], **where) for shape in shapes}

    def all_of_them() -> None:
        for shape in shapes:
            torch.mm(*given[shape], out=results[shape])

    counted = [f"{shapes.count(s)} of {' × '.join(map(str, s))}" for s in dict.fromkeys(shapes)]
    flops = sum(2 * a * b * c for a, b, c in shapes)
    return all_of_them, f"Products: {', '.join(counted)}: {flops / 1e9:.1f} GFLOP."
