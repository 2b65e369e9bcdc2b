"""Samples of every latent against the least that they need, one encoding, and against others."""

import functools
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from harness import demo, synthetic
from harness.peer import peer, python_of
from harness.row import Bench, Sides, Target, compared
from safetensors.torch import save_file

from rkstore.dictionaries import Dictionary, select_named
from rkstore.evaluation.effects import effects_on_logits
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


def save_weights(made: Dictionary, path: Path) -> None:
    """For a program that knows nothing of rkstore."""
    save_file({name: part.detach().contiguous() for name, part in made.state_dict().items()}, path)


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
    what="Every activation of 24,576 latents in Delphi's cache, and samples of each latent",
    against="Delphi's own cache of the same activations, without samples",
    unit="s",
    target=Target("at most", 1.0),
    how="The dictionary of samples_encoder, 8,192 of its rows. Ours reads them from the store, in "
    "int8, and writes the cache as it streams. Theirs has the rows in memory; it encodes them with "
    "the same product and k, and passes the code to Delphi's InMemoryCache.add, save and "
    "save_splits. The language model is on neither side.",
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
    save_weights(made, weights)
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


@compared(
    what="Samples and logits of 512 latents, as SAEDashboard's batches for Neuronpedia",
    against="SAEDashboard's own runner, which has the rows computed already",
    unit="s",
    target=Target("at most", 0.5),
    how="8,192 rows of the demo model, TopK, k = 32, in random directions; 20 samples and five of "
    "each of five intervals, with all of their block. Ours reads the store, and has the model "
    "loaded, for its unembedding alone. Theirs reads rows from the cache of its runner, and has an "
    "unembedding of as many tokens. It also correlates latents with dimensions and one another.",
    floor="Theirs encodes all rows again for each 128 latents, and looks through all of them for "
    "each latent.",
)
def samples_saedashboard(bench: Bench) -> Iterator[Sides]:
    python = python_of("readers")
    store = Store(demo.store(bench))
    made = demo.directions(bench.size(512, 128)).eval()
    context = store.manifest.context_size
    settings = SamplesSettings(
        to="saedashboard",
        model=("demo",),
        special_tokens=True,
        distinct_blocks=False,
        sample_context_size=context - 1,
    )
    looking = look(made, store, settings)
    effects = effects_on_logits(made, store, settings)
    subject = Subject(store, made, {}, "random", looking, {}, effects=effects)
    work = bench.work / "saedashboard-peer"
    work.mkdir()
    weights, rows, tokens = (work / name for name in ("weights.safetensors", "rows.npy", "ids.npy"))
    save_weights(made, weights)
    np.save(rows, store.read(demo.SITE))
    np.save(tokens, store.column("token_id").astype(np.int64).reshape(-1, context))
    numbers = itertools.count()

    def ours() -> float:
        began = time.perf_counter()
        write_found(subject, settings, work / f"ours-{next(numbers)}")
        return time.perf_counter() - began

    given = (rows, tokens, weights, demo.K, effects.tokens, work / "theirs")
    with peer(bench, python, "saedashboard_batches.py", *given) as theirs:
        yield Sides(ours, theirs)
