"""What can be harvested of a model: every tensor once, under all the names that it has."""

import json

import numpy as np
import pytest
import torch
from conftest import MODEL_LAYERS
from test_pairs import MODELS, directory, made  # noqa: F401 - a fixture

from rkstore.errors import BadInput
from rkstore.harvest.listing import listing
from rkstore.harvest.load import load_model
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HooksSettings
from rkstore.harvest.words import words_for
from rkstore.store.manifest import FILES_SCHEMA, SCHEMA
from rkstore.store.sites import Pair, block_of

OTHER_TOKENS = np.random.default_rng(5).integers(0, 280, (3, 20)).astype(np.int32)


def tensors(found):
    return [tensor for line in found.lines for tensor in line.tensors]


@pytest.fixture(scope="module")
def tiny(model_dir):
    return listing(str(model_dir), HooksSettings())


def test_every_name_is_in_the_list_once(tiny):
    names = [name for t in tensors(tiny) for name in (t.hook_name, *t.others)]
    assert sorted(names) == sorted(tiny.model.widths)


def test_names_are_one_tensor_if_and_only_if_they_are_the_same_on_other_tokens(tiny):
    sites = tiny.model.sites("*", "all")
    x = tiny.model.activations(OTHER_TOKENS, sites)
    bits = {name: values.tobytes() for name, values in x.items()}
    for tensor in tensors(tiny):
        assert {bits[tensor.hook_name]} == {bits[name] for name in tensor.others} | {
            bits[tensor.hook_name]
        }
    assert len({bits[t.hook_name] for t in tensors(tiny)}) == len(tensors(tiny))


def test_blocks_that_look_alike_are_one_line(tiny):
    [line] = [line for line in tiny.lines if line.hook_name.endswith(".mlp.hook_post")]
    assert line.hook_name == "blocks.{0-2}.mlp.hook_post"
    assert line.others == ["mlp.out.hook_in"]
    [line] = [line for line in tiny.lines if line.hook_name == "blocks.{0-2}.hook_resid_post"]
    assert "blocks.{1-2}.hook_resid_pre" in line.others
    assert "hook_out" in line.others


def test_the_usual_name_stands_for_a_tensor(tiny):
    usual = [block_of(tensor.hook_name)[1] for tensor in tensors(tiny)]
    for part in ("mlp.hook_in", "mlp.hook_post", "hook_mlp_out", "attn.hook_z", "hook_resid_mid"):
        assert usual.count(part) == MODEL_LAYERS


def test_it_says_what_harvest_would_store(tiny):
    assert tiny.usual == "blocks.{0-2}.mlp.hook_post"
    assert tiny.pairs["mlp"] == ("blocks.{0-2}.mlp.hook_in", "blocks.{0-2}.hook_mlp_out")


@pytest.mark.parametrize("name", MODELS)
def test_the_words_about_the_residual_stream_are_true(directory, name):  # noqa: F811
    """Before, plus what attention adds, plus what the MLP adds, is after."""
    model = load_model(directory(made(name)))
    x = model.activations(OTHER_TOKENS[:, :12], model.sites("*", "all"))
    before, attention, between, mlp, after = (
        x.get(f"blocks.0.hook_{part}")
        for part in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    close = {"rtol": 0, "atol": 1e-4 * np.abs(after).max()}
    np.testing.assert_allclose(before + attention + mlp, after, **close)
    if between is not None:
        np.testing.assert_allclose(before + attention, between, **close)


@pytest.mark.parametrize("name", MODELS)
def test_every_hook_has_words(directory, name):  # noqa: F811
    found = listing(directory(made(name)), HooksSettings())
    for line in found.lines:
        assert line.words
        part = block_of(line.tensors[0].hook_name)[1]
        assert words_for(part) or "module" in line.words or "the model" in line.words


def test_a_hook_without_words_is_named_by_its_module(directory):  # noqa: F811
    found = listing(directory(made("olmo2")), HooksSettings())
    told = {line.hook_name: line.words for line in found.lines}
    assert told["blocks.{0-1}.attn.q_norm.hook_out"] == (
        "output of module model.layers.{0-1}.self_attn.q_norm"
    )


def test_tensors_that_are_all_zero_are_not_called_the_same(directory):  # noqa: F811
    plain = made("gpt2")
    for block in plain.transformer.h:
        for layer in (block.attn.c_proj, block.mlp.c_proj):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    same = load_model(directory(plain)).measured.same
    assert same["blocks.0.hook_attn_out"] != same["blocks.0.hook_mlp_out"]
    # Then these are the same numbers, in this model.
    assert same["blocks.0.hook_resid_mid"] == same["blocks.0.hook_resid_post"]


@pytest.fixture
def aliased(harvest_settings, tmp_path):
    hooks = ("hook_mlp_out", "mlp.hook_out", "hook_resid_post", "hook_resid_pre")
    return run(prepare(harvest_settings(hook=hooks, out=str(tmp_path / "store"))))


def test_of_two_names_of_one_tensor_the_first_is_stored_and_the_other_an_alias(aliased):
    parts = ["hook_resid_pre", "mlp.hook_out", "hook_resid_post"]
    assert aliased.hook_names == [
        f"blocks.{i}.{part}" for i in range(MODEL_LAYERS) for part in parts[i > 0 :]
    ]
    assert aliased.aliases["blocks.1.hook_mlp_out"] == "blocks.1.mlp.hook_out"
    assert aliased.aliases["blocks.1.hook_resid_pre"] == "blocks.0.hook_resid_post"
    assert not aliased.aliases.keys() & {*aliased.hook_names}


def test_every_name_of_a_stored_tensor_is_recorded(aliased):
    assert aliased.aliases["blocks.2.mlp.out.hook_out"] == "blocks.2.mlp.hook_out"
    assert aliased.aliases["ln_final.hook_in"] == "blocks.2.hook_resid_post"


def test_an_alias_is_read_as_its_site(aliased):
    site, alias = "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"
    assert aliased.site(hook=alias) == aliased.check_site(alias) == site
    assert aliased.site(1, "hook_resid_pre") == site
    np.testing.assert_array_equal(aliased.read(alias), aliased.read(site))
    np.testing.assert_array_equal(aliased.chunk(alias, 0), aliased.chunk(site, 0))
    for what in (aliased.codec_fvu, aliased.stored_bytes, aliased.massive_error):
        assert what(alias) == what(site)
    assert aliased.statistics(alias).mean_square_norm == aliased.statistics(site).mean_square_norm


def test_a_part_of_a_name_chooses_the_sites_that_have_it_as_an_alias(aliased):
    posts = [f"blocks.{i}.hook_resid_post" for i in range(MODEL_LAYERS)]
    assert aliased.sites(hooks="hook_resid_pre") == ["blocks.0.hook_resid_pre", *posts[:-1]]
    assert aliased.sites("1-2", "hook_resid_pre") == posts[:-1]


def test_without_a_hook_no_alias_is_chosen(aliased):
    assert aliased.sites() == aliased.hook_names
    assert aliased.sites("1") == ["blocks.1.mlp.hook_out", "blocks.1.hook_resid_post"]


def test_a_name_that_is_no_alias_is_refused(aliased):
    with pytest.raises(BadInput, match=r"blocks.0.hook_resid_mid.* is not in the store"):
        aliased.read("blocks.0.hook_resid_mid")


def test_a_pair_is_recorded_by_the_stored_names(harvest_settings, tmp_path):
    settings = harvest_settings(
        pair="mlp", hook=("mlp.hook_out", "ln2.hook_out"), layers="1", out=str(tmp_path / "out")
    )
    store = run(prepare(settings))
    assert store.hook_names == ["blocks.1.ln2.hook_out", "blocks.1.mlp.hook_out"]
    assert store.pairs == (Pair("mlp", 1, "blocks.1.ln2.hook_out", "blocks.1.mlp.hook_out"),)


@pytest.mark.usefixtures("aliased")
def test_a_part_of_a_store_has_the_aliases_of_its_sites(rkstore):
    status, _, err = rkstore("pull", "store", "--out", "part", "--layers", "1", "--hook", "mlp.*")
    assert status == 0, err
    from rkstore.store.store import Store

    part = Store("part")
    assert part.hook_names == ["blocks.1.mlp.hook_out"]
    assert part.site(hook="hook_mlp_out") == "blocks.1.mlp.hook_out"
    with pytest.raises(BadInput, match="is a part"):
        part.read("blocks.1.hook_resid_pre")


def test_a_dictionary_of_an_alias_is_of_the_stored_site(aliased, rkstore):
    words = ("--store", "store", "--layer", "1", "--hook", "hook_resid_pre", "--name", "one")
    small = ("--d-sae", "32", "--steps", "2", "--batch-size", "32")
    status, out, err = rkstore("train", *words, *small)
    assert status == 0, err
    config = json.loads((aliased.root.parent / out.strip() / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.0.hook_resid_post"


@pytest.mark.usefixtures("aliased")
def test_one_dictionary_a_layer_of_an_alias(rkstore):
    words = ("--store", "store", "--layers", "1-2", "--hook", "hook_mlp_out", "--name", "all")
    status, out, err = rkstore("train", *words, "--d-sae", "32", "--steps", "2", "--batch-size", 32)
    assert status == 0, err
    assert "all/blocks.1.mlp.hook_out" in out


@pytest.mark.usefixtures("aliased")
def test_info_names_the_aliases(rkstore):
    _, out, _ = rkstore("info", "store")
    [line] = [line for line in out.splitlines() if line.startswith("  also    ")]
    assert line.endswith(" more (other names of the same numbers)")
    assert len(line) <= 100


def test_only_a_store_with_aliases_has_the_latest_schema(aliased, harvested, make_store):
    assert aliased.manifest.schema == harvested.manifest.schema == FILES_SCHEMA
    store, _ = make_store("plain")
    assert store.manifest.schema == SCHEMA
    assert b"aliases" not in store.manifest.to_bytes()


def test_the_command_fits_in_a_hundred_columns_and_says_the_same_as_json(rkstore, model_dir):
    status, out, err = rkstore("hooks", model_dir)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert "harvest --pair mlp stores blocks.{0-2}.mlp.hook_in → blocks.{0-2}.hook_mlp_out" in out
    document = json.loads(rkstore("hooks", model_dir, "--json")[1])
    post = [t for t in document["tensors"] if t["hook_name"] == "blocks.1.mlp.hook_post"]
    assert post[0]["width"] == 64
    assert post[0]["also"] == ["blocks.1.mlp.out.hook_in"]


def test_layers_and_hooks_narrow_the_list(rkstore, model_dir):
    _, out, _ = rkstore("hooks", model_dir, "--layer", "1", "--hook", "mlp.hook_*")
    assert "blocks.1.mlp.hook_post" in out
    assert "blocks.{0-2}" not in out.split("\n\n")[1]
    status, _, err = rkstore("hooks", model_dir, "--layer", "7")
    assert status == 2
    assert "layers are 0-2" in err
