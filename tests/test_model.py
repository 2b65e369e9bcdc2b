"""The language model: its sites, their widths, and activations that are its own."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MODEL_CONTEXT, MODEL_LAYERS, MODEL_MLP, MODEL_WIDTH
from safetensors.torch import load_file, save_file

from rkstore import hub
from rkstore.errors import BadInput, RkstoreError
from rkstore.manifest import Site
from rkstore.model import Model, load_model, parse_layers
from rkstore.tokens import TokenBlocks

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


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", [0, 1, 2, 3, 4]),
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
    assert parse_layers(text, 5) == layers


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "a", "-1", "1-", "0--2", "0-1-2", "0.5", "All", "²", "3-1", "0x1"]
)
def test_what_is_no_list_of_layers_is_refused(text):
    with pytest.raises(BadInput, match="--layers"):
        parse_layers(text, 5)


@pytest.mark.parametrize("text", ["5", "0-5", "0,7", "12"])
def test_a_layer_that_the_model_has_not_is_refused_with_those_it_has(text):
    with pytest.raises(BadInput, match=f"'{text}': the model has layers 0-4"):
        parse_layers(text, 5)


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
        assert activations[site.hook_name].shape == (TOKENS.size, site.d_in), site


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


@pytest.mark.parametrize(
    ("hook", "near"), [("mlp.hook_pots", "mlp.hook_post"), ("hook_mlp_ou", "hook_mlp_out")]
)
def test_an_unknown_hook_is_refused_with_the_nearest_and_all_there_are(model: Model, hook, near):
    with pytest.raises(BadInput) as error:
        model.sites(hook, "all")
    for part in (f"'{hook}'", f"did you mean {near}?", "mlp.hook_pre", "ln_final.hook_normalized"):
        assert part in str(error.value)


def test_a_hook_unlike_any_other_is_refused_without_a_guess(model: Model):
    with pytest.raises(BadInput) as error:
        model.sites("zzz", "all")
    assert "did you mean" not in str(error.value)


def test_a_hook_that_does_not_give_one_row_a_token_is_no_site(model: Model):
    """Attention patterns have a row for each head and pair of positions."""
    with pytest.raises(BadInput, match="one row a token"):
        model.sites("attn.hook_pattern", "all")


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

    plain = model.bridge.original_model
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
    kinds = {type(module).__name__ for module in model.bridge.original_model.modules()}
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
    with pytest.raises(BadInput, match=r"token 300.*tiny has 300.*--tokenizer"):
        model.check_tokens(TokenBlocks(ids + 1, ids))


def test_the_model_that_rkstore_carries_is_a_gpt2_of_twelve_layers():
    demo = load_model("demo")
    assert demo.name == "demo"
    assert demo.layers == 12
    (site,) = demo.sites("mlp.hook_post", "11")
    assert site.d_in == 4 * demo.sites("hook_mlp_out", "11")[0].d_in
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
    for part in (f"'{name}'", "--model DIR", "--text FILE", "'rkstore demo'"):
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
