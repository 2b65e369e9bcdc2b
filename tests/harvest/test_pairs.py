"""Pairs: what an MLP of plain transformers reads and writes, on every shape of model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tree

from rkstore.errors import BadInput
from rkstore.harvest.pairs import PAIRS
from rkstore.harvest.run import prepare, run
from rkstore.store.sites import Pair
from rkstore.store.store import Store

SIZE = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
DENSE = SIZE | {"intermediate_size": 32, "max_position_embeddings": 32}
GROUPED = DENSE | {"num_key_value_heads": 1}
GPT2 = {"vocab_size": 300, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
MLP, H_MLP, NEOX_MLP = "model.layers.{}.mlp", "transformer.h.{}.mlp", "gpt_neox.layers.{}.mlp"

# By name: transformers' class without "ForCausalLM", the config, and which module's input the MLP
# reads and which module's output it writes.
MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "gpt2": ("GPT2", GPT2, H_MLP, H_MLP),
    "llama": ("Llama", GROUPED, MLP, MLP),
    "qwen3": ("Qwen3", GROUPED | {"head_dim": 8}, MLP, MLP),
    "gemma": ("Gemma", GROUPED | {"head_dim": 8}, MLP, MLP),
    "gemma2": ("Gemma2", GROUPED | {"head_dim": 8}, MLP, MLP),
    "gemma3": ("Gemma3", GROUPED | {"head_dim": 8}, MLP, MLP),
    "olmo2": ("Olmo2", GROUPED, MLP, MLP),
    "granite": ("Granite", GROUPED | {"residual_multiplier": 0.2}, MLP, MLP),
    "mixtral": ("Mixtral", GROUPED | {"num_local_experts": 4}, MLP, MLP),
    "neox": ("GPTNeoX", DENSE, NEOX_MLP, NEOX_MLP),
    "neox-sequential": ("GPTNeoX", DENSE | {"use_parallel_residual": False}, NEOX_MLP, NEOX_MLP),
    "gptj": ("GPTJ", GPT2 | {"rotary_dim": 4}, H_MLP, H_MLP),
    "phi": ("Phi", DENSE, MLP, MLP),
    "falcon": ("Falcon", SIZE, H_MLP, H_MLP),  # adds the attention's output to the MLP's in place
    "opt": (
        "OPT",
        SIZE | {"word_embed_proj_dim": 16, "ffn_dim": 32, "max_position_embeddings": 32},
        "model.decoder.layers.{}.fc1",
        "model.decoder.layers.{}.fc2",
    ),
    # Their MLPs add the residual themselves.
    "bloom": (
        "Bloom",
        {"vocab_size": 300, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        H_MLP,
        "transformer.h.{}.mlp.dense_4h_to_h",
    ),
    "mpt": (
        "Mpt",
        {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 32},
        "transformer.blocks.{}.ffn",
        "transformer.blocks.{}.ffn.down_proj",
    ),
}

PARALLEL = ("neox", "gptj", "phi", "falcon")


def made(name: str) -> Any:
    """A small model with random weights; those of its norms are far from their start."""
    import transformers

    kind, config, _, _ = MODELS[name]
    configs = {"Gemma3": "Gemma3TextConfig"}
    of_config = getattr(transformers, configs.get(kind, f"{kind}Config"))
    of_model = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    plain = getattr(transformers, of_model)(of_config(**special, **config)).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in plain.parameters():
        size = 0.5 if weight.ndim == 1 else 0.3
        weight.data += size * torch.randn(weight.shape, generator=generator)
    return plain


@pytest.fixture(scope="module")
def directory(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], str]:
    """Call it with a model of transformers, to save it with a tokenizer."""

    def saved(plain: Any) -> str:
        root = tmp_path_factory.mktemp("pairs") / "model"
        plain.save_pretrained(root)
        for file in model_dir.glob("tokenizer*"):
            shutil.copy(file, root)
        return str(root)

    return saved


def passing(plain: Any, name: str, layer: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the MLP of a layer reads and writes in a forward pass, each ``(rows, d_in)``."""
    found: dict[str, np.ndarray] = {}

    def keep(what: str, x: torch.Tensor) -> None:
        # Copied at once: what a model computes later may change it in place.
        found[what] = x.reshape(-1, x.shape[-1]).numpy().copy()

    _, _, reads, writes = MODELS[name]
    removable = [
        plain.get_submodule(reads.format(layer)).register_forward_pre_hook(
            lambda _, given: keep("reads", given[0])
        ),
        plain.get_submodule(writes.format(layer)).register_forward_hook(
            lambda _, __, gave: keep("writes", gave)
        ),
    ]
    with torch.inference_mode():
        plain(torch.from_numpy(ids.astype(np.int64)))
    for hook in removable:
        hook.remove()
    return found["reads"], found["writes"]


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Up to what two orders of summing differ by."""
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_a_pair_is_what_the_mlp_of_plain_transformers_reads_and_writes(
    directory, harvest_settings, tmp_path, name
):
    plain = made(name)
    settings = harvest_settings(
        model=directory(plain), pair="mlp", codec="float32", tokens=96, out=str(tmp_path / "out")
    )
    store = run(prepare(settings))
    assert [(pair.name, pair.layer) for pair in store.pairs] == [("mlp", 0), ("mlp", 1)]
    ids = store.column("token_id").reshape(-1, 16)
    for pair in store.pairs:
        reads, writes = passing(plain, name, pair.layer, ids)
        assert_equal(store.read(pair.reads), reads)
        assert_equal(store.read(pair.writes), writes)


def test_gemmas_hooks_of_the_norm_and_behind_the_second_norm_are_not_the_pair(
    directory, harvest_settings, tmp_path
):
    """The two that are taken for it: this is what the test above would catch."""
    plain = made("gemma3")
    wrong = ("ln2.hook_normalized", "hook_mlp_out")
    settings = harvest_settings(
        model=directory(plain), hook=wrong, pair="mlp", codec="float32", out=str(tmp_path / "out")
    )
    store = run(prepare(settings))
    pair = store.pairs[0]
    for right, hook in zip((pair.reads, pair.writes), wrong, strict=True):
        x, y = store.read(right), store.read(f"blocks.0.{hook}")
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert abs(cosine).mean() < 0.99


def test_resid_mid_is_the_residual_before_the_norm_and_what_is_added_to_it(
    directory, harvest_settings, tmp_path
):
    plain = made("gemma3")
    settings = harvest_settings(
        model=directory(plain),
        pair="resid-mid",
        hook="hook_resid_post",
        codec="float32",
        out=str(tmp_path / "out"),
    )
    store = run(prepare(settings))
    assert store.pairs == tuple(
        Pair("resid-mid", i, f"blocks.{i}.hook_resid_mid", f"blocks.{i}.hook_mlp_out")
        for i in range(2)
    )
    for pair in store.pairs:
        after = store.read(f"blocks.{pair.layer}.hook_resid_post")
        assert_equal(store.read(pair.reads) + store.read(pair.writes), after)


@pytest.mark.parametrize("name", PARALLEL)
def test_a_model_without_a_residual_between_attention_and_mlp_has_no_such_pair(
    directory, harvest_settings, name
):
    with pytest.raises(BadInput, match=r"pair resid-mid needs hook_resid_mid and hook_mlp_out,"):
        prepare(harvest_settings(model=directory(made(name)), pair="resid-mid"))


def test_a_model_without_mlps_has_no_pair(directory, harvest_settings):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(BadInput) as error:
        prepare(harvest_settings(model=directory(MambaForCausalLM(config)), pair="mlp"))
    assert "pair mlp needs mlp.hook_in and mlp.hook_out, which layers 0-1 of" in str(error.value)
    assert "\n" not in str(error.value)


def test_pairs_of_one_model_share_their_sites_and_are_in_one_order(harvest_settings):
    """GPT-2's MLP writes what is added to the residual."""
    one, other = (
        prepare(harvest_settings(pair=names, layers="1")).manifest
        for names in (("mlp", "resid-mid"), ("resid-mid", "mlp"))
    )
    assert one.fingerprint == other.fingerprint
    assert one.hook_names == [
        f"blocks.1.{part}" for part in ("hook_resid_mid", "mlp.hook_in", "hook_mlp_out")
    ]
    assert [(pair.name, pair.layer) for pair in one.pairs] == [("mlp", 1), ("resid-mid", 1)]


def test_hooks_and_pairs_are_stored_together_in_the_order_of_computation(harvest_settings):
    hooks = ("mlp.hook_post", "blocks.1.hook_resid_p*", "hook_mlp_out")
    manifest = prepare(harvest_settings(pair="mlp", hook=hooks, layers="1")).manifest
    parts = ("hook_resid_pre", "mlp.hook_in", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")
    assert manifest.hook_names == [f"blocks.1.{part}" for part in parts]


def test_without_a_hook_a_pair_is_stored_alone_and_without_a_pair_the_usual_hook(harvest_settings):
    usual = prepare(harvest_settings()).manifest
    assert usual.hook_names == [f"blocks.{i}.mlp.hook_post" for i in range(3)]
    assert usual == prepare(harvest_settings(hook="mlp.hook_post")).manifest
    assert not usual.pairs
    assert b'"pairs"' not in usual.to_bytes()
    assert len(prepare(harvest_settings(pair="mlp")).manifest.sites) == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hook": ("mlp.hook_post",) * 2}, "hook mlp.hook_post is given 2 times: give each once"),
        ({"pair": ("mlp", "mlp")}, "pair mlp is given 2 times"),
        ({"pair": "attn"}, f"pair is 'attn': choose one of {', '.join(PAIRS)}"),
        ({"pair": "mlp", "layers": "1-3"}, "layer 3 is not in tiny, whose layers are 0-2"),
        ({"pair": "mlp", "layers": "x"}, "layers is 'x'"),
        ({"pair": "mlp", "hook": "nothing"}, "hook nothing is not in tiny"),
        ({"pair": "mlp", "d_in": 64}, r"blocks.0.mlp.hook_in is 16 wide, not 64"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_sentence(harvest_settings, given, said):
    with pytest.raises(BadInput) as error:
        prepare(harvest_settings(**given))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


class Killed(BaseException):
    """As much of a kill as a process can do to itself."""


def test_a_resumed_harvest_of_pairs_equals_one_that_was_not_stopped(harvest_settings, tmp_path):
    options = {"pair": ("mlp", "resid-mid"), "hook": "mlp.hook_post"}

    def die(shard: int) -> None:
        if shard == 1:
            raise Killed

    with pytest.raises(Killed):
        run(prepare(harvest_settings(**options, out=str(tmp_path / "stopped"))), die)
    run(prepare(harvest_settings(**options, out=str(tmp_path / "stopped"))))
    run(prepare(harvest_settings(**options, out=str(tmp_path / "whole"))))
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")


def test_the_model_runs_once_however_many_sites_there_are(harvest_settings, tmp_path):
    ready = prepare(
        harvest_settings(pair="mlp", hook=("hook_resid_*", "ln2*"), out=str(tmp_path / "out"))
    )
    batches: list[int] = []
    ready.model.capture.plain.transformer.register_forward_pre_hook(
        lambda _, given, named: batches.append(len(given[0] if given else named["input_ids"])),
        with_kwargs=True,
    )
    run(ready)
    assert sum(batches) == len(ready.blocks.ids)


def test_info_names_the_pairs_and_a_part_those_whose_sites_it_has(rkstore, harvest_settings):
    run(prepare(harvest_settings(pair="mlp", out="store")))
    line = "pair    mlp of layer 1: blocks.1.mlp.hook_in → blocks.1.hook_mlp_out"
    assert line in rkstore("info", "store")[1]
    status, _, err = rkstore("pull", "store", "--out", "one", "--layers", "1")
    assert (status, err) == (0, err)
    assert [pair.layer for pair in Store("one").pairs] == [1]
    rkstore("pull", "store", "--out", "half", "--layers", "1", "--hook", "mlp.hook_in")
    assert Store("half").pairs == ()
    assert Store("half").manifest == Store("store").manifest
