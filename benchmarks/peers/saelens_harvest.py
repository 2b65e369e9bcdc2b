"""One run of SAELens' CacheActivationsRunner, for one layer, in seconds.

python saelens_harvest.py TOKENS OUT LAYER

The model has GPT-2's shape and random weights. Its weights and the tokens are in memory before
a run begins: only ``run()`` is timed.
"""

import shutil
import sys
import time
from pathlib import Path

import torch
from answer import answer
from datasets import load_from_disk
from sae_lens import cache_activations_runner  # type: ignore[import-not-found,unused-ignore]
from sae_lens.config import (  # type: ignore[import-not-found,unused-ignore]
    CacheActivationsRunnerConfig,
)
from transformer_lens import HookedTransformer, HookedTransformerConfig

THREADS = 2
BLOCKS_AT_ONCE = 32
D_MLP = 3072
FLOAT_BYTES = 4


def gpt2_shaped() -> HookedTransformer:
    """GPT-2 as SAELens would load it, but for its weights: those need the Hub."""
    config = HookedTransformerConfig(
        n_layers=12,
        d_model=768,
        n_ctx=1024,
        d_head=64,
        n_heads=12,
        d_mlp=D_MLP,
        d_vocab=50257,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
        seed=0,
    )
    return HookedTransformer(config)


def main() -> None:
    tokens, out, layer = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(THREADS)
    model = gpt2_shaped()
    cache_activations_runner.load_model = lambda **_: model
    dataset = load_from_disk(str(tokens))
    blocks, context = len(dataset), len(dataset[0]["input_ids"])

    def one_layer() -> float:
        config = CacheActivationsRunnerConfig(
            dataset_path=str(tokens),
            model_name="gpt2",
            model_batch_size=min(BLOCKS_AT_ONCE, blocks),
            hook_name=f"blocks.{layer}.mlp.hook_post",
            d_in=D_MLP,
            training_tokens=blocks * context,
            context_size=context,
            new_cached_activations_path=str(out),
            device="cpu",
            # One buffer that holds all, as the default of 2 GB does with as few tokens.
            buffer_size_gb=(blocks * context * D_MLP * FLOAT_BYTES + 1) / 1e9,
        )
        runner = cache_activations_runner.CacheActivationsRunner(config, override_dataset=dataset)
        began = time.perf_counter()
        runner.run()
        seconds = time.perf_counter() - began
        shutil.rmtree(out)
        return seconds

    answer(one_layer)


if __name__ == "__main__":
    main()
