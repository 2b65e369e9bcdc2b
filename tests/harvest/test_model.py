"""The language model: its sites, their widths, and activations that are its own."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MODEL_CONTEXT, MODEL_LAYERS, MODEL_MLP, MODEL_WIDTH
from safetensors.torch import load_file, save_file

from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest.capture.examine import PROBE_TOKENS
from rkstore.harvest.load import load_model
from rkstore.harvest.model import Model
from rkstore.harvest.tokens import TokenBlocks
from rkstore.store.places import hub
from rkstore.store.sites import Among, Site, block_of

TOKENS = np.random.default_rng(0).integers(0, 280, (3, 20)).astype(np.int32)


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the model's directory, to spoil."""
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def with_weights(root: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    weights = load_file(root / "model.safetensors")
    change(weights)
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    return root


def with_config(root: Path, **change: object) -> Path:
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(config | change))
    return root


BLOCKS = Among([f"blocks.{i}.mlp" for i in range(5)], "it", lambda _: "has five")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("0", [0]),
        ("4", [4]),
        ("0-3", [0, 1, 2, 3]),
        ("0-2,4", [0, 1, 2, 4]),
        ("4,0", [0, 4]),
        ("1,1,0-1", [0, 1]),
        ("2-2", [2]),
        (" 1 , 3 ", [1, 3]),
    ],
)
def test_a_list_of_layers_is_each_layer_once_in_order(text, layers):
    assert BLOCKS.layers(text) == layers
    assert BLOCKS.layers(layers[0]) == layers[:1]
    assert BLOCKS.layers("all") is BLOCKS.layers(None) is None


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "a", "-1", "1-", "0--2", "0-1-2", "0.5", "All", "²", "3-1", "0x1"]
)
def test_what_is_no_list_of_layers_is_refused(text):
    with pytest.raises(BadInput, match=r"^layers"):
        BLOCKS.layers(text)


@pytest.mark.parametrize("text", ["5", "0-5", "0,7", "12", "0-999999999"])
def test_a_layer_that_the_model_has_not_is_refused_with_those_it_has(text):
    with pytest.raises(BadInput, match=r"layer \d+ is not in it, whose layers are 0-4"):
        BLOCKS.layers(text)


def test_the_model_says_its_size(model: Model):
    assert model.layers == MODEL_LAYERS
    assert model.longest_context == MODEL_CONTEXT
    assert model.bos == model.tokenizer.bos_token_id == 0


def test_the_widths_are_those_of_the_activations_and_not_of_something_near(model: Model):
    """The two that are confused most: the layer inside the MLP, and the MLP's output."""
    assert model.sites("mlp.hook_post", "0") == [Site("blocks.0.mlp.hook_post", MODEL_MLP)]
    assert model.sites("hook_mlp_out", "0") == [Site("blocks.0.hook_mlp_out", MODEL_WIDTH)]


def test_every_site_has_the_width_that_its_activations_have(model: Model):
    sites = model.sites("*", "all")
    assert len(sites) > 10 * MODEL_LAYERS
    activations = model.activations(TOKENS, sites)
    for site in sites:
        assert activations[site.hook_name].shape == (TOKENS.size, site.width), site


@pytest.mark.parametrize(
    ("hook", "layers", "names"),
    [
        ("mlp.hook_post", "all", [f"blocks.{i}.mlp.hook_post" for i in range(3)]),
        ("mlp.hook_post", "2,0", ["blocks.0.mlp.hook_post", "blocks.2.mlp.hook_post"]),
        ("blocks.1.mlp.hook_post", "all", ["blocks.1.mlp.hook_post"]),
        ("blocks.*.mlp.hook_post", "all", [f"blocks.{i}.mlp.hook_post" for i in range(3)]),
        ("ln_final.hook_normalized", "all", ["ln_final.hook_normalized"]),
        ("hook_resid_p*", "1", ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]),
        ("mlp.hook_p[or]*", "0", ["blocks.0.mlp.hook_pre", "blocks.0.mlp.hook_post"]),
    ],
)
def test_a_hook_is_named_by_its_part_in_full_or_by_a_pattern_in_the_models_order(
    model: Model, hook, layers, names
):
    assert [site.hook_name for site in model.sites(hook, layers)] == names


@pytest.mark.parametrize("hook", ["mlp.hook_pots", "hook_mlp_ou", "attn.hook_pattern"])
def test_an_unknown_hook_is_refused_with_the_nearest_few_and_how_many_more(model: Model, hook):
    with pytest.raises(BadInput, match=r"row a token.* and \d+ more") as error:
        model.sites(hook, "all")
    assert f"hook {hook} is not in" in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("layers", ["all", "1"])
def test_whatever_a_slip_of_the_pen_is_taken_for_is_accepted(model: Model, layers):
    """In each name two letters change places."""
    for i, hook in enumerate(model.hooks(layers)):
        at = i % (len(hook) - 1)
        slip = hook[:at] + hook[at + 1] + hook[at] + hook[at + 2 :]
        if slip in model.hooks(layers):
            continue
        with pytest.raises(BadInput) as error:
            model.sites(slip, layers)
        guess = re.search(r"did you mean (\S+)\? There are also (.*) and", str(error.value))
        for name in [guess[1], *guess[2].split(", ")]:
            assert model.sites(name, layers), slip


@pytest.mark.parametrize("layers", ["all", "0,2"])
def test_every_name_that_a_model_offers_is_one_of_its_sites(model: Model, layers):
    for hook in model.hooks(layers):
        assert model.sites(hook, layers), hook


def test_a_hook_unlike_any_other_is_refused_without_a_guess(model: Model):
    with pytest.raises(BadInput) as error:
        model.sites("zzz", "all")
    assert "did you mean" not in str(error.value)


def test_several_hooks_name_what_each_of_them_names_in_the_models_order(model: Model):
    hooks = ("hook_resid_post", "mlp.hook_post", "hook_resid_p*")
    found = model.sites(hooks, "1")
    parts = ("hook_resid_pre", "mlp.hook_post", "hook_resid_post")
    assert [site.hook_name for site in found] == [f"blocks.1.{part}" for part in parts]


@pytest.mark.parametrize("wrong", ["mlp.hook_pots", "zzz", "attn.hook_pattern"])
def test_of_several_hooks_each_must_name_something(model: Model, wrong):
    with pytest.raises(BadInput, match=f"hook {wrong} is not in"):
        model.sites(["mlp.hook_post", wrong, "hook_mlp_out"], "all")


@pytest.mark.parametrize("hook", ["blocks.1.mlp.hook_post", "ln_final.hook_normalized"])
def test_a_hook_that_is_not_in_a_layer_asked_for_is_refused_with_where_it_is(model: Model, hook):
    with pytest.raises(
        BadInput, match=rf"layer 0.* and hook {hook} is not in .*, which has it at {hook}"
    ):
        model.sites(hook, "0-1")


def test_a_hook_that_does_not_give_one_row_a_token_is_no_site(model: Model):
    """Attention patterns have a row for each head and pair of positions."""
    with pytest.raises(BadInput, match="one row a token"):
        model.sites("attn.hook_pattern", "all")


# Models of other shapes and kinds.


@pytest.fixture(scope="module")
def load(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Model]:
    """Call it with a model of transformers; it is saved with a tokenizer, and loaded by rkstore."""

    def saved_and_loaded(plain: Any) -> Model:
        root = tmp_path_factory.mktemp("models") / "other"
        plain.save_pretrained(root)
        for file in model_dir.glob("tokenizer*"):
            shutil.copy(file, root)
        return load_model(str(root))

    return saved_and_loaded


def gpt2(**given: Any) -> Any:
    """A GPT-2 of one layer, and of a size that one can choose."""
    from transformers import GPT2Config, GPT2LMHeadModel

    usual = {"vocab_size": 300, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**(usual | given)))


def opt(**given: Any) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    usual = {
        "vocab_size": 300,
        "max_position_embeddings": 32,
        "hidden_size": 8,
        "word_embed_proj_dim": 8,
        "ffn_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    return OPTForCausalLM(OPTConfig(**(usual | given)))


@pytest.fixture(scope="module")
def looped(load) -> Model:
    """Two stacks of two layers each, which run four times and twice in a pass."""
    from transformers import HrmTextConfig, HrmTextForCausalLM

    torch.manual_seed(0)
    config = HrmTextConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        H_cycles=2,
        L_cycles=2,
    )
    return load(HrmTextForCausalLM(config))


def test_a_hook_that_fires_several_times_has_its_last_value_whatever_else_is_chosen(looped: Model):
    tokens = TOKENS[:2, :5]
    _, cache = looped.capture.bridge.run_with_cache(torch.from_numpy(tokens).long())
    together = looped.activations(tokens, looped.sites("*", "all"))
    assert looped.repeated
    for site in looped.sites("*", "1"):
        last = cache[site.hook_name].reshape(tokens.size, -1).detach().numpy()
        alone = looped.activations(tokens, [site])
        for found in (alone, together):
            np.testing.assert_array_equal(found[site.hook_name], last, err_msg=site.hook_name)


def test_hooks_that_fire_once_are_known_and_the_pass_still_ends_at_the_last(model, looped: Model):
    assert not model.repeated
    assert looped.repeated.isdisjoint({"embed.hook_out", "unembed.hook_in"})
    assert {"L_blocks.0.hook_out", "H_blocks.1.hook_out"} <= looped.repeated


def test_layers_are_numbers_of_blocks_whatever_the_model_calls_them(looped: Model):
    assert looped.layers == 2
    names = [site.hook_name for site in looped.sites("mlp.hook_out", "1")]
    assert names == ["L_blocks.1.mlp.hook_out", "H_blocks.1.mlp.hook_out"]
    names = [site.hook_name for site in looped.sites("H_blocks.*.mlp.hook_out", "0")]
    assert names == ["H_blocks.0.mlp.hook_out"]
    with pytest.raises(BadInput, match="whose layers are 0-1"):
        looped.sites("mlp.hook_out", "2")


# The lists of blocks that TransformerLens' architectures have.
STACKS = ("blocks", "L_blocks", "H_blocks", "encoder_blocks", "decoder_blocks", "prelude", "coda")


@pytest.mark.parametrize("stack", [*STACKS, "core_block", "model.layers", "layer2.blocks"])
def test_the_block_of_a_hook_is_the_first_number_in_its_name(stack):
    assert block_of(f"{stack}.12.mlp.hook_post") == (12, "mlp.hook_post")
    assert block_of(f"{stack}.3.experts.7.hook_out") == (3, "experts.7.hook_out")
    assert block_of(f"{stack}.hook_out") == (None, f"{stack}.hook_out")


@pytest.mark.parametrize("heads", range(1, PROBE_TOKENS + 2))
def test_attention_patterns_are_no_rows_however_many_heads_there_are(load, heads):
    found = load(gpt2(n_head=heads, n_embd=2 * heads))
    assert not [name for name in found.widths if "pattern" in name or "scores" in name]
    sites = found.sites("*", "all")
    for length in (heads, 11):
        tokens = TOKENS[:, :length]
        assert all(len(x) == tokens.size for x in found.activations(tokens, sites).values())


@pytest.mark.parametrize("context", [2, 3, PROBE_TOKENS, 100])
def test_a_model_may_see_as_few_tokens_as_it_likes(load, context):
    found = load(gpt2(n_positions=context))
    assert found.longest_context == context
    assert found.sites("mlp.hook_post", "0") == [Site("blocks.0.mlp.hook_post", 32)]


def test_what_is_not_one_row_a_token_after_all_is_never_stored(model: Model):
    """The shape is looked at each time, not only when the model is loaded."""
    with pytest.raises(RkstoreError, match="not one row a token"):
        model.activations(TOKENS, [Site("blocks.0.attn.hook_pattern", MODEL_WIDTH)])


@pytest.mark.parametrize("width", [8, 6])
def test_an_opt_is_harvested_with_the_norm_in_front_and_refused_with_the_norm_behind(load, width):
    """TransformerLens' hooks turn the second kind's activations into another shape."""
    plain = opt(word_embed_proj_dim=width)
    found = load(plain)
    expected = plain.eval()(torch.from_numpy(TOKENS).long()).logits.detach().numpy()
    (site,) = found.sites("unembed.hook_out", "all")
    x = found.activations(TOKENS, found.sites("*", "all"))[site.hook_name]
    np.testing.assert_allclose(x, expected.reshape(TOKENS.size, -1), rtol=0, atol=1e-5)
    with pytest.raises(BadInput, match=r"cannot hook the model .*\(OPTForCausalLM\)") as error:
        load(opt(word_embed_proj_dim=width, do_layer_norm_before=False))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_post_norm_opt_is_refused_however_many_layers_it_has(load, layers):
    with pytest.raises(BadInput, match="cannot hook"):
        load(opt(num_hidden_layers=layers, do_layer_norm_before=False))


def test_a_model_that_computes_something_else_with_hooks_than_without_is_refused(
    model_dir, monkeypatch
):
    from transformer_lens.model_bridge import TransformerBridge

    boot = TransformerBridge.boot_transformers

    def wrong(*args: Any, **options: Any) -> Any:
        bridge = boot(*args, **options)
        next(bridge.original_model.parameters()).data.mul_(1.1)
        return bridge

    monkeypatch.setattr(TransformerBridge, "boot_transformers", wrong)
    with pytest.raises(BadInput, match="its output changes with the hooks"):
        load_model(str(model_dir))


def test_a_checkpoint_without_its_head_gives_the_same_activations_and_none_of_the_head(load):
    whole = gpt2(tie_word_embeddings=False)
    headless, complete = load(whole.transformer), load(whole)
    lost = complete.widths.keys() - headless.widths.keys()
    assert lost == {"unembed.hook_out", "hook_unembed"}
    sites = headless.sites("*", "all")
    expected = complete.activations(TOKENS, sites)
    for name, x in headless.activations(TOKENS, sites).items():
        np.testing.assert_array_equal(x, expected[name], err_msg=name)


def test_a_checkpoint_without_its_head_has_one_digest_however_often_it_is_loaded(load):
    whole = gpt2(tie_word_embeddings=False)
    first, second = (load(whole.transformer).describe()["model"] for _ in range(2))
    assert first == second


def test_a_head_that_is_the_embedding_is_needed(copy):
    with_weights(copy, lambda weights: weights.pop("transformer.wte.weight"))
    with pytest.raises(BadInput, match="lacks weights"):
        load_model(str(copy))


def test_activations_are_those_of_the_plain_transformers_model(model: Model, model_dir: Path):
    from transformers import GPT2LMHeadModel

    plain = GPT2LMHeadModel.from_pretrained(model_dir).eval()
    expected: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            expected[name] = output.reshape(-1, output.shape[-1]).numpy()

        return hook

    for i, block in enumerate(plain.transformer.h):
        block.mlp.act.register_forward_hook(keep(f"blocks.{i}.mlp.hook_post"))
        block.mlp.register_forward_hook(keep(f"blocks.{i}.hook_mlp_out"))
    with torch.inference_mode():
        plain(torch.from_numpy(TOKENS).long())
    sites = model.sites("mlp.hook_post", "all") + model.sites("hook_mlp_out", "all")
    found = model.activations(TOKENS, sites)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert x.std() > 0.01
        np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-5, err_msg=name)


def test_rows_follow_block_after_block_and_do_not_depend_on_the_other_blocks(model: Model):
    sites = model.sites("mlp.hook_post", "1")
    together = model.activations(TOKENS, sites)[sites[0].hook_name]
    for i, block in enumerate(TOKENS):
        alone = model.activations(block[None], sites)[sites[0].hook_name]
        np.testing.assert_allclose(together[20 * i : 20 * (i + 1)], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("last", [0, 1])
def test_stopping_behind_the_last_site_does_not_change_a_value(model: Model, last):
    """A site of the last layer keeps the model from stopping any earlier."""
    sites = model.sites("hook_resid_post", str(last))
    stopped = model.activations(TOKENS, sites)
    whole = model.activations(TOKENS, sites + model.sites("unembed.hook_out", "all"))
    name = sites[0].hook_name
    np.testing.assert_allclose(stopped[name], whole[name], rtol=0, atol=1e-6)


def test_nothing_behind_the_last_site_is_computed(model: Model):
    def refuse(*_: object) -> None:
        raise AssertionError("the unembedding was computed")

    plain = model.capture.plain
    hook = plain.lm_head.register_forward_pre_hook(refuse)
    try:
        model.activations(TOKENS, model.sites("mlp.hook_post", "all"))
    finally:
        hook.remove()


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_the_fused_gelu_is_the_one_that_transformers_writes_out(size):
    from transformers.activations import GELUTanh, NewGELUActivation

    x = size * torch.randn(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(GELUTanh()(x), NewGELUActivation()(x), rtol=1e-13, atol=1e-15)


def test_a_loaded_model_computes_the_fused_gelu(model: Model):
    kinds = {type(module).__name__ for module in model.capture.plain.modules()}
    assert "GELUTanh" in kinds
    assert "NewGELUActivation" not in kinds


def test_activations_are_float32_whatever_the_model_computes_in(model_dir: Path):
    half = load_model(str(model_dir), dtype="bfloat16")
    assert half.describe()["model"]["dtype"] == "bfloat16"
    sites = half.sites("mlp.hook_post", "0")
    x = half.activations(TOKENS, sites)[sites[0].hook_name]
    assert x.dtype == np.float32
    exact = torch.from_numpy(x).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(exact, x)


def test_text_becomes_the_tokens_of_the_models_own_tokenizer(model: Model, model_dir: Path):
    from tokenizers import Tokenizer

    texts = ["the cat sat", "über naïve rivers 42 🦊", "the <| cat"]
    plain = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    expected = [plain.encode(text, add_special_tokens=False).ids for text in texts]
    assert model.encode(texts) == expected


def test_the_manifest_learns_what_the_model_and_its_tokenizer_are(model: Model):
    said = model.describe()
    assert said["model"] | {"weights_sha256": None} == {
        "name": "tiny",
        "revision": None,
        "architecture": "GPT2LMHeadModel",
        "layers": MODEL_LAYERS,
        "dtype": "float32",
        "weights_sha256": None,
    }
    assert len(said["model"]["weights_sha256"]) == len(said["tokenizer"]["sha256"]) == 64
    assert said["tokenizer"]["bos_token_id"] == 0


def test_the_hashes_are_those_of_weights_and_tokenizer_and_of_nothing_else(model: Model, copy):
    said = model.describe()
    same = load_model(str(copy)).describe()
    assert same["model"] == said["model"] | {"name": "copy"}
    assert same["tokenizer"] == said["tokenizer"]

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["transformer.h.2.mlp.c_fc.bias"][3] += 1e-3

    other = load_model(str(with_weights(copy, change))).describe()
    assert other["model"]["weights_sha256"] != said["model"]["weights_sha256"]
    assert other["tokenizer"] == said["tokenizer"]


def test_a_token_that_the_model_has_not_is_refused_with_both_numbers(model: Model):
    ids = np.array([[0, 299]], np.int32)
    model.check_tokens(TokenBlocks(ids, ids))
    with pytest.raises(BadInput, match=r"token 300.*tiny has 300.*tokenizer DIR"):
        model.check_tokens(TokenBlocks(ids + 1, ids))


def test_the_model_that_rkstore_carries_is_a_gpt2_of_twelve_layers():
    demo = load_model("demo")
    assert demo.name == "demo"
    assert demo.layers == 12
    (site,) = demo.sites("mlp.hook_post", "11")
    assert site.width == 4 * demo.sites("hook_mlp_out", "11")[0].width
    assert demo.encode(["import this"])[0]


# What can be wrong with a model, each as one sentence.


@pytest.mark.parametrize("name", ["{}/nowhere", "./nowhere", "../nowhere"])
def test_a_directory_that_does_not_exist_is_refused_and_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    name = name.format(tmp_path)
    with pytest.raises(BadInput) as error:
        load_model(name)
    assert f"there is no directory {name}" in str(error.value)


def test_a_directory_without_a_config_is_refused_and_named(copy):
    (copy / "config.json").unlink()
    with pytest.raises(BadInput, match=r"no config\.json") as error:
        load_model(str(copy))
    assert str(copy) in str(error.value)


def test_a_directory_without_weights_is_refused_and_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"no weights.*save_pretrained") as error:
        load_model(str(copy))
    assert str(copy) in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_weights_cut_short_are_refused_and_named(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput) as error:
        load_model(str(copy))
    assert str(copy) in str(error.value)


def test_a_weight_that_is_missing_is_never_made_up(copy):
    """Loaded as it is, the layer would be random, and so would all that is stored of it."""
    lost = "transformer.h.1.mlp.c_fc.weight"
    with_weights(copy, lambda weights: weights.pop(lost))
    with pytest.raises(BadInput, match=r"h\.1\.mlp\.c_fc"):
        load_model(str(copy))


def test_a_config_that_does_not_fit_the_weights_is_refused(copy):
    with pytest.raises(BadInput) as error:
        load_model(str(with_config(copy, n_embd=32)))
    assert str(copy) in str(error.value)


def test_layers_in_the_config_that_have_no_weights_are_refused(copy):
    with pytest.raises(BadInput):
        load_model(str(with_config(copy, n_layer=MODEL_LAYERS + 1)))


def test_an_unknown_kind_of_model_is_refused_and_named(copy):
    with pytest.raises(BadInput, match="nonsense"):
        load_model(str(with_config(copy, model_type="nonsense")))


def test_a_config_that_is_no_json_is_refused(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(BadInput) as error:
        load_model(str(copy))
    assert str(copy) in str(error.value)


def test_a_directory_without_a_tokenizer_is_refused(copy):
    """An empty tokenizer in its place would find no token in any text."""
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BadInput, match="tokenizer") as error:
        load_model(str(copy))
    assert str(copy) in str(error.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", "{"])
def test_a_tokenizer_that_is_none_is_refused(copy, content):
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput, match="tokenizer"):
        load_model(str(copy))


def test_another_tokenizer_can_be_given(copy, model: Model, model_dir):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    given = load_model(str(copy), tokenizer=str(model_dir))
    assert given.encode(["the cat"]) == model.encode(["the cat"])


def test_a_tokenizer_without_special_tokens_is_given_none(model_dir, tmp_path):
    """A BOS that neither tokenizer nor model knew would stand in front of every block."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=bare).save_pretrained(tmp_path / "bare")
    given = load_model(str(model_dir), tokenizer=str(tmp_path / "bare"))
    assert given.bos is None
    assert given.describe()["tokenizer"]["tokens"] == 256


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "not a/valid/name"])
def test_without_a_network_the_sentence_names_what_works_without_one(name):
    with pytest.raises(RkstoreError) as error:
        load_model(name)
    for part in (f"'{name}'", "model DIR", "text FILE", "'rkstore demo'"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, BadInput)


@pytest.mark.parametrize("device", ["quantum", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_and_named(model_dir, device):
    with pytest.raises(BadInput, match=f"device '?{device}"):
        load_model(str(model_dir), device=device)


# Whether there is a way to the Hub is asked once, before anything waits for it.


@pytest.fixture
def no_hub_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", *hub.PROXIES):
        # Set first: what is deleted without having been there is not put back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def unreachable(host: str, _port: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")


@pytest.mark.usefixtures("no_hub_variables")
def test_a_hub_whose_name_is_not_known_is_not_waited_for(monkeypatch):
    import os

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    hub.fail_fast()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("no_hub_variables")
def test_a_hub_that_can_be_reached_is_asked(monkeypatch):
    import os

    asked = []
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443/hub")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, _: asked.append(host))
    hub.fail_fast()
    assert asked == ["mirror.example"]
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.usefixtures("no_hub_variables")
@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", *hub.PROXIES])
def test_what_the_user_has_said_of_the_network_stands(monkeypatch, name):
    import os

    monkeypatch.setenv(name, "0")
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    hub.fail_fast()
    assert os.environ[name] == "0"
    assert os.environ.get("HF_HUB_OFFLINE", "0") == "0"
