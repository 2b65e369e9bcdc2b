"""The size of a harvest by the configuration of a model alone, of models too large for a test."""

import json

import pytest
from test_pairs import MODELS, directory, made  # noqa: F401 - a fixture

from rkstore.cli.terminal import describe_outline
from rkstore.errors import BadInput
from rkstore.harvest.load import load_model
from rkstore.harvest.outline import outline
from rkstore.harvest.settings import HarvestSettings

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500000.0}
LLAMA_3 = LLAMA | {
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024}
NEOX = {"model_type": "gpt_neox", "max_position_embeddings": 2048, "rotary_pct": 0.25}


def sized(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


# By each model's config.json on the Hub: the configuration, its parameters as published, in
# billions, and the layers and width of mlp.hook_post.
REAL = {
    "gpt2-medium": (GPT2 | {"n_embd": 1024, "n_layer": 24, "n_head": 16}, 0.3548, 24, 4096),
    "gpt2-xl": (GPT2 | {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1.5576, 48, 6400),
    "pythia-12b": (NEOX | {"vocab_size": 50688} | sized(5120, 20480, 36, 40), 11.846, 36, 20480),
    "llama-3.1-8b": (LLAMA_3 | sized(4096, 14336, 32, 32), 8.030, 32, 14336),
    "llama-3.1-70b": (LLAMA_3 | sized(8192, 28672, 80, 64), 70.554, 80, 28672),
    "gemma-2-27b": (
        {
            "model_type": "gemma2",
            "vocab_size": 256000,
            "head_dim": 128,
            "num_key_value_heads": 16,
            "max_position_embeddings": 8192,
        }
        | sized(4608, 36864, 46, 32),
        27.227,
        46,
        36864,
    ),
    "gemma-3-1b": (
        {
            "model_type": "gemma3_text",
            "vocab_size": 262144,
            "head_dim": 256,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
        }
        | sized(1152, 6912, 26, 4),
        0.99989,
        26,
        6912,
    ),
    "qwen3-32b": (
        {
            "model_type": "qwen3",
            "vocab_size": 151936,
            "head_dim": 128,
            "num_key_value_heads": 8,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
        }
        | sized(5120, 25600, 64, 64),
        32.762,
        64,
        25600,
    ),
}


@pytest.fixture
def configured(tmp_path):
    """A directory with the configuration of a model, and nothing else."""

    def written(config: dict[str, object]) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return written


def asked(model: str, **given: object) -> HarvestSettings:
    return HarvestSettings(model=model, device="meta", **given)


@pytest.mark.parametrize("name", REAL)
def test_a_model_of_any_size_is_planned_without_its_weights(configured, name):
    config, billions, layers, width = REAL[name]
    found = outline(asked(configured(config), dtype="bfloat16", tokens=1_000_000))
    assert found.parameters == pytest.approx(billions * 1e9, rel=1e-3)
    assert found.parameter_bytes == pytest.approx(2 * found.parameters, rel=0.01)
    assert [site.width for site in found.sites] == [width] * layers
    assert found.bytes_per_row("int8") == layers * width
    assert found.bytes("bfloat16") == 2 * layers * width * found.rows


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "neox"])
def test_the_hooks_are_those_of_the_model_with_weights(directory, name):  # noqa: F811
    saved = directory(made(name))
    loaded = load_model(saved, capture="transformers")
    found = outline(asked(saved, hook=("*",), tokens=64, context_size=32))
    known = {site.hook_name: site.width for site in found.sites}
    assert known.items() <= loaded.widths.items()
    adding = ("hook_resid_mid", "hook_attn_out", "hook_mlp_out")
    assert all(name.endswith(adding) for name in loaded.widths.keys() - known.keys())


def test_every_weight_but_the_embedding_is_multiplied_with_each_token(configured):
    config = GPT2 | {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000}
    tied = outline(asked(configured(config), tokens=1280))
    apart = outline(asked(configured(config | {"tie_word_embeddings": False}), tokens=1280))
    assert apart.parameters - tied.parameters == 1000 * 64
    assert apart.operations == tied.operations == 2 * tied.weights * 1280


def test_what_needs_text_or_writes_is_refused(configured):
    model = configured(GPT2 | {"n_embd": 64, "n_layer": 2, "n_head": 2})
    for given in ({"text": ("a.txt",)}, {"out": "store"}, {"heads": "apart"}, {"seed": 3}):
        with pytest.raises(BadInput, match="would be ignored with device meta"):
            outline(asked(model, **given))


def test_the_plan_is_read_by_people(configured):
    said = describe_outline(outline(asked(configured(REAL["gpt2-xl"][0]), tokens=10**9)))
    assert "1,557,611,200 parameters, 6.23 GB" in said
    assert "sites   48: blocks.0.mlp.hook_post to blocks.47.mlp.hook_post, 6400 wide" in said
    assert "rows    1,000,000,000 in blocks of 128" in said
    assert "int8          307 kB      307 TB" in said
