"""Evaluating: all metrics of a dictionary from a store, against its own encode and decode."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import synthetic
from harness.row import Bench, Sides, Target, compared
from harness.training import seconds

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.store.batches.plan import HELD_OUT_EVERY, split_chunks
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

D_IN, D_SAE, K = 768, 6144, 32
BATCH = 4096


@functools.cache
def store(bench: Bench) -> Store:
    """A store of the default codec, of whose rows 65,536 are held out; its shards are alike."""
    shards = bench.size(HELD_OUT_EVERY * 65_536, 2 * HELD_OUT_EVERY * 1024) // synthetic.SHARD_ROWS
    root = bench.work / "store-evaluated"
    manifest = Manifest(
        rows=max(1, shards) * synthetic.SHARD_ROWS,
        context_size=synthetic.CONTEXT,
        shard_rows=synthetic.SHARD_ROWS,
        chunk_rows=synthetic.CHUNK_ROWS,
        codec="int8",
        format="zarr",
        sites=(Site(synthetic.SITE, D_IN),),
        source={"model": {"name": "synthetic"}},
    )
    row = np.arange(synthetic.SHARD_ROWS, dtype=np.int32)
    columns = {"token_id": row, "document": row // synthetic.CONTEXT}
    columns["position"] = row % synthetic.CONTEXT
    x = synthetic.shard(0, D_IN)
    with StoreWriter(root, manifest) as writer:
        for _ in range(manifest.shards):
            writer.write_shard({synthetic.SITE: x}, columns)
    return Store(root)


def checkpoint(bench: Bench) -> tuple[Path, Dictionary]:
    """A TopK dictionary of random weights."""
    generator = torch.Generator().manual_seed(0)
    select = select_named("topk", {"k": K})
    dictionary = Dictionary.of_site(D_IN, bench.size(D_SAE, 512), select).eval()
    with torch.no_grad():
        rows = torch.randn(dictionary.d_sae, D_IN, generator=generator)
        dictionary.W_dec.copy_(torch.nn.functional.normalize(rows, dim=1))
        dictionary.W_enc.copy_(dictionary.W_dec.T)
    path = bench.work / "evaluated"
    path.mkdir(exist_ok=True)
    save_dictionary(dictionary, path, {"hook_name": synthetic.SITE, "model_name": "synthetic"})
    return path, dictionary


@compared(
    what="Evaluating TopK, 768 → 6,144, k = 32, on 65,536 held-out rows of a store",
    against="Encoding and decoding the same rows in memory",
    unit="s",
    target=Target("at most", 1.5),
    how="rkstore.evaluation.evaluate.evaluate with every metric, the random dictionary beside it "
    "and batches of 4,096 rows; a store with the default codec, page cache warm. Theirs is one "
    "encode and decode of that dictionary alone, in the same batches: the random one, fitted to "
    "2,048 rows and measured on 4,096, counts as ours.",
    floor="Theirs is 19.3 GFLOP for 1,024 rows, half of them to encode. Ours decodes from the list "
    "of what is on, for a tenth of its half. Beyond that it reads the store, lists what is on, "
    "passes a few times over 4,096 × 768 numbers in float64, does a tenth of the rows again for "
    "the random dictionary, and twice half of the 58 GFLOP of the cosines of its latents: about 1.",
    repetitions=5,
)
def evaluate_sae(bench: Bench) -> Iterator[Sides]:
    path, dictionary = checkpoint(bench)
    held_out = store(bench)
    chunks = split_chunks(held_out)[1]
    x: Any = torch.from_numpy(np.concatenate([held_out.chunk(synthetic.SITE, c) for c in chunks]))
    settings = EvaluateSettings(store=str(held_out.root), batch_size=BATCH)

    @torch.no_grad()
    def alone() -> None:
        for rows in x.split(BATCH):
            dictionary.decode(dictionary.encode(rows))

    def evaluated() -> None:
        evaluate([path], settings)

    yield Sides(seconds(evaluated), seconds(alone))
