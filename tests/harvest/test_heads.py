"""Each head of attention as a site of its own."""

import json

import numpy as np
import pytest
import torch
from test_pairs import directory, made  # noqa: F401 - a fixture

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.harvest.run import prepare, run
from rkstore.store.sites import head_of


@pytest.fixture
def both(harvest_settings, tmp_path):
    """Call it with a model and a hook: its store flat, and with the heads apart."""

    def harvested(model, hook):
        given = {"model": model, "hook": hook, "codec": "float32"}
        return [
            run(prepare(harvest_settings(heads=heads, out=str(tmp_path / heads), **given)))
            for heads in ("flat", "apart")
        ]

    return harvested


@pytest.mark.parametrize(
    ("name", "hook", "heads", "d_head"),
    [
        ("gpt2", "attn.hook_z", 2, 8),
        ("gpt2", "attn.hook_q", 2, 8),
        ("llama", "attn.hook_z", 2, 8),
        ("llama", "attn.hook_q", 2, 8),
        ("llama", "attn.hook_k", 1, 8),  # one head of keys for two of queries
        ("llama", "attn.hook_v", 1, 8),
        ("gemma3", "attn.hook_z", 2, 8),
    ],
)
def test_a_head_is_its_slice_of_the_flat_site(both, directory, name, hook, heads, d_head):  # noqa: F811
    flat, apart = both(directory(made(name)), hook)
    names = [f"blocks.{i}.{hook}.h{head}" for i in range(2) for head in range(heads)]
    assert apart.hook_names == names
    for site in names:
        of, head = head_of(site)
        whole = flat.read(of)
        assert whole.shape[1] == heads * d_head
        part = slice(head * d_head, (head + 1) * d_head)
        np.testing.assert_array_equal(apart.read(site), whole[:, part])


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("gpt2", "transformer.h.1.attn.c_proj"),
        ("llama", "model.layers.1.self_attn.o_proj"),
        ("gemma3", "model.layers.1.self_attn.o_proj"),
    ],
)
def test_the_heads_together_are_what_the_output_matrix_of_plain_transformers_reads(
    both,
    directory,  # noqa: F811
    name,
    output,
):
    plain = made(name)
    _, store = both(directory(plain), "attn.hook_z")
    seen = []
    plain.get_submodule(output).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ids = store.column("token_id").reshape(-1, 16).astype(np.int64)
    with torch.inference_mode():
        plain(torch.from_numpy(ids))
    expected = seen[0].reshape(-1, seen[0].shape[-1]).numpy()
    found = np.concatenate([store.read(f"blocks.1.attn.hook_z.h{h}") for h in (0, 1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_flat_is_the_default(harvest_settings):
    usual, flat = (
        prepare(harvest_settings(hook="attn.hook_z", **heads)).manifest
        for heads in ({}, {"heads": "flat"})
    )
    assert usual == flat
    assert usual.hook_names[0] == "blocks.0.attn.hook_z"


def test_sites_without_heads_stay_as_they_are(harvest_settings):
    hooks = ("attn.hook_z", "mlp.hook_post")
    manifest = prepare(harvest_settings(hook=hooks, layers="1", heads="apart")).manifest
    assert manifest.hook_names[-1] == "blocks.1.mlp.hook_post"
    assert manifest.hook_names[0] == "blocks.1.attn.hook_z.h0"


def test_no_hook_with_heads_is_one_sentence(harvest_settings):
    with pytest.raises(BadInput, match=r"heads apart needs a hook with heads: tiny has attn\.q"):
        prepare(harvest_settings(heads="apart"))


def test_the_other_names_of_a_head_are_its_aliases(harvest_settings):
    hooks = ("attn.hook_z", "attn.o.hook_in")
    manifest = prepare(harvest_settings(hook=hooks, layers="1", heads="apart")).manifest
    assert len(manifest.sites) == len(set(manifest.aliases)) > 1
    assert manifest.aliases["blocks.1.attn.hook_z.h1"] == "blocks.1.attn.o.hook_in.h1"


def test_a_dictionary_of_a_head_is_named_as_saelens_names_it(harvest_settings, rkstore, tmp_path):
    run(prepare(harvest_settings(hook="attn.hook_z", heads="apart", out="store")))
    words = ("--store", "store", "--layer", "1", "--hook", "attn.hook_z.h1", "--name", "one")
    status, out, err = rkstore("train", *words, "--d-sae", 64, "--steps", 2, "--batch-size", 32)
    assert status == 0, err
    path = tmp_path / out.strip()
    metadata = json.loads((path / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.1.attn.hook_z"
    assert metadata["hook_head_index"] == 1
    dictionary, _ = load_dictionary(path)
    assert [site.hook_name for site in dictionary.wiring.sites] == ["blocks.1.attn.hook_z.h1"]
    status, _, err = rkstore("evaluate", path, "--store", "store")
    assert status == 0, err


@pytest.mark.parametrize(
    ("site", "parts"),
    [
        ("blocks.3.attn.hook_z.h5", ("blocks.3.attn.hook_z", 5)),
        ("base:blocks.3.attn.o.hook_in.h12", ("base:blocks.3.attn.o.hook_in", 12)),
        ("blocks.3.attn.hook_z", ("blocks.3.attn.hook_z", None)),
        ("acts.h5", ("acts.h5", None)),
        ("blocks.3.hook_z.h05", ("blocks.3.hook_z.h05", None)),
        ("a.hook_z.h0,a.hook_z.h1", ("a.hook_z.h0,a.hook_z.h1", None)),
    ],
)
def test_the_name_of_a_head(site, parts):
    assert head_of(site) == parts
