"""What samples take of memory does not grow with the rows that are looked at."""

import numpy as np
from conftest import make_manifest, write_store
from memory import MIB, memory_of, where_it_is_counted

HOOK, WIDTH, LATENTS = "blocks.0.mlp.hook_post", 8, 64

COLLECT = f"""
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.evaluation.samples.collect import collect
from rkstore.evaluation.samples.settings import CollectSettings
from rkstore.store.store import Store

torch.set_num_threads(1)
made = Dictionary.of_site({WIDTH}, {LATENTS}, select_named("topk", dict(k=4)), hook_name={HOOK!r})
for parameter in made.parameters():
    torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))


def measured(root):
    return int(collect(made, Store(root), CollectSettings()).fired.sum())
"""


def write_rows(root, rows):
    manifest = make_manifest(
        rows=rows, shard_rows=65_536, chunk_rows=4096, sites={HOOK: WIDTH}, codec="float16"
    )
    rng, row = np.random.default_rng(0), np.arange(rows, dtype=np.int32)
    x = np.tile(rng.standard_normal((4096, WIDTH)).astype(np.float32), (-(-rows // 4096), 1))
    columns = {"token_id": row % 300, "document": row // 1000, "position": row % 8}
    write_store(root, manifest, {HOOK: x[:rows]} | columns)
    return root


@where_it_is_counted
def test_a_million_rows_take_no_more_memory_than_a_hundred_thousand(tmp_path):
    small = write_rows(tmp_path / "small", 100_000)
    large = write_rows(tmp_path / "large", 1_000_000)
    of_small, _ = memory_of(COLLECT, small, small)
    of_large, fired = memory_of(COLLECT, small, large)
    # What fires on the rows between them is 29 MB, as it is kept in the file.
    assert 8 * fired > 25 * MIB
    assert of_large < of_small + 8 * MIB
