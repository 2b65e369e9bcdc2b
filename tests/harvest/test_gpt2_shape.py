"""GPT-2's exact shape, all twelve layers: the store holds what plain transformers computes."""

import shutil

import numpy as np
import pytest

from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.formats import FORMATS


@pytest.fixture(scope="module")
def gpt2_dir(tmp_path_factory, model_dir):
    """12 layers, 768 and 3,072 wide, 50,257 tokens; random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path_factory.mktemp("gpt2") / "gpt2"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir / name, path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def reference(gpt2_dir):
    """Call it with token ids ``(blocks, context)``; returns each layer's ``(rows, 3072)``."""
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(gpt2_dir, dtype=torch.float32).eval()

    def forward(ids):
        found = {}
        for layer, block in enumerate(model.transformer.h):
            block.mlp.act.register_forward_hook(
                lambda _module, _input, output, layer=layer: found.update({layer: output})
            )
        with torch.inference_mode():
            model.transformer(torch.from_numpy(ids.astype(np.int64)))
        return {layer: output.reshape(-1, 3072).numpy() for layer, output in found.items()}

    return forward


@pytest.mark.parametrize("format", FORMATS)
def test_every_layer_equals_a_plain_forward_pass(gpt2_dir, reference, text_file, tmp_path, format):
    settings = HarvestSettings(
        model=str(gpt2_dir),
        text=(str(text_file),),
        tokens=256,
        context_size=64,
        shard_rows=128,
        format=format,
        codec="float16",
        out=str(tmp_path / "store"),
    )
    store = run(prepare(settings))
    expected = reference(store.column("token_id").reshape(-1, 64))
    assert store.manifest.hook_names == [f"blocks.{i}.mlp.hook_post" for i in range(12)]
    for layer, name in enumerate(store.manifest.hook_names):
        found = store.read(name)
        assert found.shape == (256, 3072)
        # Half a unit in the last place of float16, and what two orders of summing differ by.
        bound = np.abs(expected[layer]) * 2**-11 + 3e-5
        assert (np.abs(found - expected[layer]) <= bound).all(), name
        variation = np.square(expected[layer] - expected[layer].mean(axis=0)).sum()
        fvu = np.square(found - expected[layer]).sum() / variation
        assert fvu == pytest.approx(store.codec_fvu(name), rel=0.05)
