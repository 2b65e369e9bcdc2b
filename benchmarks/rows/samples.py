"""Samples of every latent against the least that they need: the encoder, once over the rows."""

import functools
import itertools
import time
from collections.abc import Iterator

import numpy as np
import torch
from harness import synthetic
from harness.peer import peer, python_of
from harness.row import Bench, Sides, Target, compared
from safetensors.torch import save_file

from rkstore.dictionaries import Dictionary, select_named
from rkstore.evaluation.samples.collect import collect
from rkstore.evaluation.samples.layouts import Subject
from rkstore.evaluation.samples.looking import look
from rkstore.evaluation.samples.settings import CollectSettings, SamplesSettings
from rkstore.evaluation.samples.write import write_found
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


@compared(
    what="The same dictionary and rows, every activation in Delphi's cache, and samples chosen",
    against="Delphi's own cache of the same activations, its encoder's code and no samples",
    unit="s",
    target=Target("at most", 1.0),
    how="8,192 rows. Ours reads them from the store, in int8, and writes the cache as it streams. "
    "Theirs has the rows in memory; it encodes them with the same product and k, and passes the "
    "code to Delphi's InMemoryCache.add, save and save_splits. The language model is on neither "
    "side.",
    floor="The product of rows and encoder is on both sides. Theirs searches a dense code for what "
    "fires, and the whole list once for each file.",
)
def samples_delphi(bench: Bench) -> Iterator[Sides]:
    python = python_of("readers")
    store = Store(synthetic.store(bench, width=WIDTH))
    made = dictionary(bench.size(D_SAE, 2048))
    settings = SamplesSettings(rows=bench.size(8192, 4096), to="delphi")
    looking = look(made, store, settings)
    weights, rows = bench.work / "weights.safetensors", bench.work / "rows.npy"
    save_file(
        {name: part.detach().contiguous() for name, part in made.state_dict().items()}, weights
    )
    np.save(rows, np.concatenate([store.chunk(synthetic.SITE, chunk) for chunk in looking.chunks]))
    subject = Subject(store, made, {}, "random", looking, {})
    numbers = itertools.count()

    def ours() -> float:
        began = time.perf_counter()
        write_found(subject, settings, bench.work / f"delphi-{next(numbers)}")
        return time.perf_counter() - began

    shape = (synthetic.SITE, synthetic.CONTEXT, K, settings.batch_size)
    with peer(bench, python, "delphi_cache.py", rows, weights, *shape, bench.work / "t") as theirs:
        yield Sides(ours, theirs)
