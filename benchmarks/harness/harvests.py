"""Harvests: of a model with GPT-2's shape, and of the demo model."""

import functools
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.row import THREADS, Bench, Side, Sides
from rkstore.harvest.load import EMBEDDED, EMBEDDED_PATH
from rkstore.harvest.run import Harvest, prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.writing.encoder import ShardEncoder

Floats = NDArray[np.float32]

# A long harvest has many: with only one, nothing would run while it is written.
SHARDS = 2


@functools.cache
def gpt2_directory(bench: Bench) -> Path:
    """GPT-2's exact shape with random weights, and a tokenizer whose tokens it has."""
    from transformers import GPT2Config, GPT2LMHeadModel

    path = bench.work / "gpt2"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED_PATH / name, path)
    return path


def prepared(bench: Bench, dtype: str = "float32") -> Harvest:
    """All twelve ``mlp.hook_post``, default codec, in more shards than one."""
    tokens = bench.size(8192, 1024)
    return prepare(
        HarvestSettings(
            model=str(gpt2_directory(bench)),
            dataset="python",
            tokens=tokens,
            shard_rows=tokens // SHARDS,
            batch_size=bench.size(HarvestSettings().batch_size, 4),
            dtype=dtype,
            out=str(bench.work / "harvest"),
        )
    )


def harvesting(harvest: Harvest) -> Side:
    """Tokens/s of a harvest into an empty directory, the model loaded before."""

    def repetition() -> float:
        shutil.rmtree(harvest.out, ignore_errors=True)
        began = time.perf_counter()
        run(harvest)
        return harvest.manifest.rows / (time.perf_counter() - began)

    return repetition


def against_run_with_cache(bench: Bench, dtype: str) -> Iterator[Sides]:
    """A harvest, and the same sites of the same tokens left in memory by TransformerLens."""
    harvest = prepared(bench, dtype)
    bridge = plain_bridge(gpt2_directory(bench), dtype)
    ids: Any = torch.from_numpy(harvest.blocks.ids).long()
    names = harvest.manifest.hook_names

    rates = []

    def run_with_cache() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            for blocks in ids.split(harvest.batch_size):
                _, cache = bridge.run_with_cache(blocks, names_filter=names)
                assert set(names) <= set(cache)
        rates.append(float(ids.numel() / (time.perf_counter() - began)))
        return rates[-1]

    def notes() -> list[str]:
        return bound(harvest, statistics.median(rates))

    yield Sides(harvesting(harvest), run_with_cache, notes)


def bound(harvest: Harvest, theirs: float) -> list[str]:
    """The time of the parts of a harvest alone, and so the best possible ratio.

    Args:
        theirs: tokens/s of the other side.
    """
    forward, values = _forward_alone(harvest)
    encoding = _encoding_alone(harvest, values)
    together = 1 / (1 / forward + 1 / encoding)
    return [
        f"The harvest's forward pass alone, to the last site, runs {forward:,.0f} tokens/s, and "
        f"encoding alone {encoding:,.0f} on {THREADS} threads (once each, after the last "
        f"repetition). If encoding, writing and fsync were free, the ratio would be "
        f"{forward / theirs:.2f}; with encoding, which shares the cores with the model, at most "
        f"{together / theirs:.2f}."
    ]


def _forward_alone(harvest: Harvest) -> tuple[float, dict[str, Floats]]:
    """Tokens/s of the model as a harvest runs it, and what it says of the last batch."""
    ids, size = harvest.blocks.ids, harvest.batch_size
    began = time.perf_counter()
    for start in range(0, len(ids), size):
        values = harvest.model.activations(ids[start : start + size], list(harvest.manifest.sites))
    return ids.size / (time.perf_counter() - began), values


def _encoding_alone(harvest: Harvest, values: dict[str, Floats]) -> float:
    """Tokens/s of encoding one batch, checksums and statistics with it."""
    context = harvest.manifest.context_size
    rows = len(next(iter(values.values())))
    manifest = replace(harvest.manifest, rows=rows, shard_rows=rows)
    columns = {name: np.arange(rows) % context for name in COLUMNS}
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        shard = ShardEncoder(manifest, 0, pool)
        shard.add(values, columns)
        shard.finish()
        return rows / (time.perf_counter() - began)


def plain_bridge(model: Path, dtype: str) -> Any:
    """A separate bridge, made as TransformerLens documents it, without rkstore."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    bridge = TransformerBridge.boot_transformers(
        str(model),
        device="cpu",
        dtype=getattr(torch, dtype),
        tokenizer=AutoTokenizer.from_pretrained(model),
        hf_model=AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)),
    )
    return bridge.eval()


def demo(bench: Bench, layers: str, tokens: int, out: str) -> Harvest:
    """A harvest of the demo model on Python's own text."""
    return prepare(
        HarvestSettings(
            model=EMBEDDED,
            dataset="python",
            layers=layers,
            tokens=tokens,
            out=str(bench.work / out),
        )
    )


@functools.cache
def demo_store(bench: Bench) -> Store:
    """All layers of the demo model."""
    return run(demo(bench, "all", bench.size(65_536, 8192), "demo"))
