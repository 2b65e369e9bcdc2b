"""Samples of every latent against the least that they need: the encoder, once over the rows."""

import functools
import time
from collections.abc import Iterator

import torch
from harness import synthetic
from harness.row import Bench, Sides, Target, compared

from rkstore.dictionaries import Dictionary, select_named
from rkstore.evaluation.samples.collect import collect
from rkstore.evaluation.samples.settings import CollectSettings
from rkstore.store.batches.assemble import read_rows
from rkstore.store.store import Store

WIDTH, D_SAE, K = 768, 24_576, 32


@functools.cache
def dictionary(d_sae: int) -> Dictionary:
    """A TopK dictionary of random directions."""
    select = select_named("topk", {"k": K})
    made = Dictionary.of_site(WIDTH, d_sae, select, hook_name=synthetic.SITE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weights in made.banks:
            weights.W_enc.normal_(generator=generator)
    return made.eval()


@compared(
    what="100 samples of each of 24,576 latents, with statistics and what is around each sample",
    against="The encoder over the same rows, whose code is thrown away",
    unit="s",
    target=Target("at most", 1.5),
    how="16,384 rows of 768 random numbers through a GELU, in int8, and TopK latents in random "
    "directions, k = 32. Both sides read the store and encode 1,024 rows at a time.",
    floor="1: the product of rows and encoder, and choosing the k largest, are on both sides.",
)
def samples_encoder(bench: Bench) -> Iterator[Sides]:
    store = Store(synthetic.store(bench, width=WIDTH))
    made = dictionary(bench.size(D_SAE, 2048))
    rows = bench.size(16_384, 4096)
    settings = CollectSettings(rows=rows, max_samples_per_feature=100)
    step = len(store.chunk_range) * store.manifest.chunk_rows // rows

    def ours() -> float:
        began = time.perf_counter()
        collect(made, store, settings)
        return time.perf_counter() - began

    @torch.no_grad()
    def theirs() -> float:
        began = time.perf_counter()
        chunks = store.chunk_range[::step]
        for batch in read_rows(store, [synthetic.SITE], chunks, settings.batch_size):
            made.encode(torch.from_numpy(batch.x[synthetic.SITE]))
        return time.perf_counter() - began

    yield Sides(ours, theirs)
