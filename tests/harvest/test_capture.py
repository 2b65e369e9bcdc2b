"""Where activations come from: whatever program hooks into a model, a name gives the same rows."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from test_outline import REAL
from test_pairs import MODELS, PARALLEL, directory, made  # noqa: F401 - a fixture

from rkstore.errors import BadInput
from rkstore.harvest.capture import CAPTURES
from rkstore.harvest.edited import logits
from rkstore.harvest.load import load_model
from rkstore.harvest.run import LIBRARIES, prepare, run
from rkstore.store.sites import Site, block_of

TOKENS = np.random.default_rng(7).integers(0, 280, (3, 20)).astype(np.int32)

ADDED = frozenset({"hook_resid_mid", "hook_attn_out", "hook_mlp_out"})

# Of the usual names, those that plain modules do not show.
LACKING = {
    **dict.fromkeys(("granite", "bloom", "mpt"), ADDED),
    "opt": ADDED | {"mlp.hook_in", "mlp.hook_post", "mlp.hook_out"},
    "mixtral": frozenset({"mlp.hook_post"}),
    **dict.fromkeys(PARALLEL, frozenset({"hook_resid_mid"})),
}
USUAL = {
    *("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"),
    *("attn.hook_z", "attn.hook_out", "mlp.hook_in", "mlp.hook_post", "mlp.hook_out"),
}


THERE = [name for name in CAPTURES if name != "interp-engine" or find_spec("interp_engine")]


@pytest.fixture(scope="module")
def pair(directory, request):  # noqa: F811
    """A model with each program's hooks."""
    saved = directory(made(request.param))
    return request.param, {name: load_model(saved, capture=name) for name in THERE}


every_model = pytest.mark.parametrize("pair", MODELS, indirect=True)


@every_model
def test_a_name_gives_the_same_rows_whoever_hooks(pair):
    _, models = pair
    lens = models["transformer-lens"]
    for other in THERE[1:]:
        plain = models[other]
        sites = plain.sites("*", "all")
        assert {site.hook_name for site in sites} <= lens.widths.keys()
        expected, found = lens.activations(TOKENS, sites), plain.activations(TOKENS, sites)
        for site in sites:
            name = site.hook_name
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=f"{other} {name}"
            )


@every_model
def test_the_usual_names_are_there_unless_nothing_adds_up(pair):
    name, models = pair
    there = {block_of(hook)[1] for hook in models["transformers"].widths}
    assert USUAL - there == LACKING.get(name, frozenset())


@pytest.mark.parametrize("pair", ["gpt2", "gemma3"], indirect=True)
def test_heads_are_apart_whoever_hooks(pair):
    _, models = pair
    hook = "blocks.1.attn.hook_z"
    assert {models[name].measured.heads[hook] for name in THERE} == {2}
    sites = models["transformers"].apart([Site(hook, models["transformers"].widths[hook])])
    found = [models[name].activations(TOKENS, sites) for name in THERE]
    for site, other in product(sites, found[1:]):
        name = site.hook_name
        np.testing.assert_allclose(other[name], found[0][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pair", ["llama", "falcon"], indirect=True)
def test_rows_are_replaced_whoever_hooks(pair):
    _, models = pair
    for site in ("blocks.1.hook_resid_pre", "blocks.0.mlp.hook_out", "blocks.1.attn.hook_z"):
        halved = [logits(models[name], TOKENS, [site], lambda _, x: x / 2) for name in THERE]
        whole = logits(models["transformers"], TOKENS, [site], lambda *_: None)
        for other in halved[1:]:
            torch.testing.assert_close(other, halved[0], rtol=1e-3, atol=1e-3)
        assert not torch.allclose(halved[1], whole, atol=1e-3)


def test_a_store_says_whose_hooks_its_rows_are_from_if_not_the_usual(harvest_settings, tmp_path):
    usual = run(prepare(harvest_settings(out=str(tmp_path / "usual"))))
    other = run(prepare(harvest_settings(out=str(tmp_path / "other"), capture="transformers")))
    assert "capture" not in usual.manifest.source["model"]
    assert other.manifest.source["model"]["capture"] == "transformers"
    name = usual.hook_names[0]
    np.testing.assert_allclose(other.read(name), usual.read(name), atol=0.05)


@pytest.mark.parametrize("capture", THERE)
def test_a_store_says_the_version_of_the_program_that_hooked(harvest_settings, capture):
    recorded = prepare(harvest_settings(capture=capture)).manifest.source["libraries"]
    own = {"interp-engine"} if capture == "interp-engine" else set()
    assert recorded.keys() == {*LIBRARIES, *own}
    assert all(version(name) == number for name, number in recorded.items())


def test_a_model_spread_over_devices_gives_the_rows_of_one_device(harvest_settings, tmp_path):
    """One processor is the only device here, so its layers are all on it."""
    one = run(prepare(harvest_settings(out=str(tmp_path / "one"))))
    spread = run(prepare(harvest_settings(out=str(tmp_path / "spread"), device_map="auto")))
    assert spread.manifest.source["run"]["device"] == "map auto"
    for name in one.hook_names:
        np.testing.assert_array_equal(spread.read(name), one.read(name))


def test_a_device_and_a_map_of_devices_are_not_both_given(model_dir):
    with pytest.raises(BadInput, match="device_map auto chooses the devices"):
        load_model(str(model_dir), device="cpu:0", device_map="auto")


def test_a_program_that_is_not_installed_is_named(model_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "interp_engine.model", None)
    with pytest.raises(BadInput, match=r"pip install 'rkstore\[interp-engine\]'"):
        load_model(str(model_dir), capture="interp-engine")


def small(config: dict[str, Any]) -> Any:
    """A model of that configuration in everything but its size, with random weights."""
    import transformers

    shrunk = {"hidden_size": 64, "intermediate_size": 160, "n_embd": 64, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "n_head": 4, "num_key_value_heads": 2, "head_dim": 16}
    layers = {"num_hidden_layers": 3, "n_layer": 3}
    sizes = {name: size for name, size in (shrunk | heads | layers).items() if name in config}
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    made = transformers.AutoConfig.for_model(**(config | sizes | special))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(made).eval()


@pytest.mark.parametrize("name", REAL)
def test_models_of_real_configurations_are_harvested_whoever_hooks(directory, name):  # noqa: F811
    saved = directory(small(REAL[name][0]))
    models = [load_model(saved, capture=capture) for capture in THERE]
    sites = models[1].sites(["mlp.hook_post", "hook_resid_post", "hook_mlp_out"], "all")
    found = [model.activations(TOKENS, sites) for model in models]
    for site, other in product(sites, found[1:]):
        expected = found[0][site.hook_name]
        error = np.linalg.norm(other[site.hook_name] - expected) / np.linalg.norm(expected)
        assert error < 1e-5, site
