"""A store of the demo model, and dictionaries of random directions for it."""

import functools

import torch

from harness.row import Bench
from rkstore.dictionaries import Dictionary, select_named
from rkstore.harvest import run as harvest
from rkstore.harvest.settings import HarvestSettings

SITE, WIDTH, K = "blocks.6.mlp.hook_post", 512, 32


@functools.cache
def store(bench: Bench) -> str:
    """8,192 rows, with their text."""
    settings = HarvestSettings(
        model="demo",
        dataset="python",
        layers="6",
        tokens=bench.size(8192, 2048),
        out=str(bench.work / "stores" / "demo"),
    )
    return str(harvest.run(harvest.prepare(settings)).root)


def directions(d_sae: int) -> Dictionary:
    """A TopK dictionary; encoder and decoder are the same."""
    dictionary = Dictionary.of_site(WIDTH, d_sae, select_named("topk", {"k": K}), hook_name=SITE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weights in dictionary.banks:
            rows = torch.randn(weights.W_dec.shape, generator=generator)
            weights.W_dec.copy_(torch.nn.functional.normalize(rows, dim=1))
            weights.W_enc.copy_(weights.W_dec.T)
    return dictionary
