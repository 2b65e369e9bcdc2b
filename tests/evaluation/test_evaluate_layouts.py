"""Dictionaries of any program are measured on the store of their site, side by side."""

import json

import pytest
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"


def sae(hook_name=SITE, seed=0):
    """An autoencoder of 12 dimensions with random weights."""
    dictionary = Dictionary.of_site(12, 24, select_named("topk", {"k": 4}), hook_name=hook_name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return dictionary


@pytest.fixture
def store(make_store):
    return make_store(rows=400)[0]


def measured(store, *paths, **options):
    return evaluate(paths, EvaluateSettings(store=str(store.root), **options))


def refused(store, path, **options):
    with pytest.raises(BadInput) as caught:
        measured(store, path, **options)
    return caught.value.sentence


def test_one_dictionary_scores_the_same_in_two_layouts_side_by_side(store, tmp_path):
    sae().save_pretrained(tmp_path / "saelens", layout="saelens")
    sae().save_pretrained(tmp_path / "rkstore", layout="rkstore")
    one, other = measured(store, tmp_path / "saelens", tmp_path / "rkstore")
    assert (one.fvu, one.l0, one.dead) == (other.fvu, other.l0, other.dead)
    assert [one.name, other.name] == ["saelens", "rkstore"]


def test_a_dictionary_without_a_site_is_measured_where_it_is_said_to_be(store, tmp_path):
    sae(hook_name="x").save_pretrained(tmp_path / "unnamed")
    sae().save_pretrained(tmp_path / "named")
    sentence = refused(store, tmp_path / "unnamed")
    assert "does not say which activations it reads: say it with --hook-name" in sentence
    one, other = measured(store, tmp_path / "unnamed", tmp_path / "named", hook_name=SITE)
    assert (one.fvu, one.hook_name) == (other.fvu, SITE)


def test_a_hook_name_does_not_move_a_dictionary_that_names_its_site(store, tmp_path):
    sae().save_pretrained(tmp_path / "named")
    [one] = measured(store, tmp_path / "named", hook_name="blocks.1.mlp.hook_post")
    assert one.hook_name == SITE


def test_another_name_of_a_site_is_the_site(make_store, tmp_path):
    store, _ = make_store(rows=400)
    manifest = json.loads((store.root / "manifest.json").read_text())
    alias = "blocks.0.mlp.out.hook_in"
    aliased = type(store)(store.root)
    aliased.aliases = {alias: SITE}
    sae(hook_name=alias).save_pretrained(tmp_path / "alias")
    assert manifest["sites"]
    from rkstore.evaluation import evaluate as module

    found = module._prepare(
        tmp_path / "alias", "alias", aliased, EvaluateSettings(store=str(store.root))
    )
    assert found.sites == (SITE,)


@pytest.mark.parametrize(
    ("hook_name", "said"),
    [
        ("blocks.0.ln2.hook_normalized", "harvest it with --hook blocks.0.ln2.hook_normalized"),
        ("blocks.0.attn.hook_z.h1", "harvest it with --hook blocks.0.attn.hook_z --heads apart"),
        ("blocks.7.mlp", "'blocks.7.mlp' is not in the store"),
    ],
)
def test_a_site_that_the_store_lacks_is_refused_with_what_to_harvest_if_that_is_known(
    store, tmp_path, hook_name, said
):
    sae(hook_name=hook_name).save_pretrained(tmp_path / "other")
    assert said in refused(store, tmp_path / "other")


def test_activations_of_changed_weights_are_refused_unless_asked_for(store, tmp_path):
    dictionary = sae()
    dictionary.metadata = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    dictionary.save_pretrained(tmp_path / "centred")
    sentence = refused(store, tmp_path / "centred")
    assert "activations of changed weights (center_writing_weights)" in sentence
    [result] = measured(store, tmp_path / "centred", any_model=True)
    assert any("center_writing_weights" in note for note in result.notes)


def test_a_file_that_does_not_say_how_weights_were_changed_is_doubted(make_store, tmp_path):
    site = "blocks.0.hook_resid_pre"
    store, _ = make_store(rows=400, sites={site: 12})
    dictionary = sae(hook_name=site)
    dictionary.save_pretrained(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "cfg.json").read_text())
    flat = config | {"hook_point": site, "model_name": "random", "metadata": {}}
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(flat))
    [result] = measured(store, tmp_path / "old")
    assert any("do not say whether the model's weights were centred" in n for n in result.notes)
    dictionary.save_pretrained(tmp_path / "new")
    [result] = measured(store, tmp_path / "new")
    assert not any("centred" in note for note in result.notes)


def test_a_training_starts_from_a_dictionary_whose_files_name_no_site(store, tmp_path):
    from rkstore.dictionaries import load_dictionary

    dictionary = sae(hook_name="x")
    dictionary.normalise_decoder()
    dictionary.save_pretrained(tmp_path / "unnamed")
    path = train(
        TrainSettings(
            store=str(store.root),
            hook=SITE,
            d_sae=24,
            k=4,
            steps=1,
            lr=0.0,
            batch_size=32,
            from_=str(tmp_path / "unnamed"),
            out=str(tmp_path / "checkpoints"),
        )
    )
    found, metadata = load_dictionary(path)
    assert metadata["hook_name"] == SITE
    assert torch.allclose(found.W_dec, dictionary.W_dec, atol=1e-6)
