"""Write the batches of SAEDashboard's runner, without its model, in seconds.

python saedashboard_batches.py ROWS.npy TOKENS.npy WEIGHTS.safetensors K VOCABULARY DIRECTORY
"""

import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from answer import answer

# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from safetensors.torch import load_file

THREADS = 2

# Where a row is the residual stream: nothing of the model is needed then but its unembedding.
HOOK = "blocks.0.hook_resid_post"


def main() -> None:
    rows, tokens, weights = sys.argv[1:4]
    k, vocabulary = map(int, sys.argv[4:6])
    directory = Path(sys.argv[6])
    torch.set_num_threads(THREADS)
    x, ids, made = torch.from_numpy(np.load(rows)), np.load(tokens), load_file(weights)
    d_in, d_sae = made["W_enc"].shape
    encoder = TopKSAE(TopKSAEConfig(d_in, d_sae, k=k, rescale_acts_by_decoder_norm=True))
    encoder.load_state_dict(made)
    unembedding = torch.randn(d_in, vocabulary, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(
        hook_dict={HOOK: None}, W_U=unembedding, cfg=SimpleNamespace(d_vocab=vocabulary)
    )
    words = {id: f" word{id}" for id in range(vocabulary)}
    settings = NeuronpediaRunnerConfig("set", "path", str(directory), model_id="model", layer=0)
    cache = _cached(x, ids, directory / "cache", settings.n_prompts_in_forward_pass)
    out = directory / "batches"

    def one_pass() -> float:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        began = time.perf_counter()
        step = settings.n_features_at_a_time
        for number, first in enumerate(range(0, d_sae, step)):
            features = list(range(first, min(first + step, d_sae)))
            found = SaeVisRunner(_of(features, settings, cache)).run(
                encoder, model, torch.from_numpy(ids)
            )
            text = NeuronpediaConverter.convert_to_np_json(model, found, settings, words)
            (out / f"batch-{number}.json").write_text(text, "utf-8")
        return time.perf_counter() - began

    answer(one_pass)


def _cached(x: torch.Tensor, ids: np.ndarray, cache: Path, prompts: int) -> Path:
    """The rows where its runner keeps those that it has computed."""
    cache.mkdir(parents=True)
    shaped = x.reshape(*ids.shape, -1)
    for number, part in enumerate(torch.split(shaped, prompts)):
        torch.save({HOOK: part.clone()}, cache / f"model_activations_{number}.pt")
    return cache


def _of(features: list[int], settings: NeuronpediaRunnerConfig, cache: Path) -> SaeVisConfig:
    """What its runner for Neuronpedia asks for."""
    sequences = SequencesConfig(
        stack_mode="stack-all",
        buffer=None,
        compute_buffer=True,
        n_quantiles=settings.n_quantiles,
        top_acts_group_size=settings.top_acts_group_size,
        quantile_group_size=settings.quantile_group_size,
    )
    parts = (sequences, ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig())
    return SaeVisConfig(
        hook_point=HOOK,
        features=features,
        minibatch_size_features=settings.n_features_at_a_time,
        minibatch_size_tokens=settings.n_prompts_in_forward_pass,
        quantile_feature_batch_size=settings.quantile_feature_batch_size,
        feature_centric_layout=SaeVisLayoutConfig(
            columns=[Column(*parts, FeatureTablesConfig(n_rows=3))]
        ),
        cache_dir=cache,
    )


if __name__ == "__main__":
    main()
