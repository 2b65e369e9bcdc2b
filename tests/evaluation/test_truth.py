"""Dictionaries of a planted store: their scores are those of the truth itself."""

import numpy as np
import pytest
import torch

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.planted.settings import PlantSettings
from rkstore.planted.store import plant
from rkstore.planted.truth import planted_in
from rkstore.store.batches.plan import split_chunks
from rkstore.store.sites import Site

STREAM = "blocks.0.hook_resid_post"


def planted(tmp_path, **options):
    small = {"rows": 4096, "features": 24, "d_in": (16,), "easy": True, "bias": 0.5}
    return plant(PlantSettings(out=str(tmp_path / "planted"), **(small | options)))


def saved(path, store, names):
    """A dictionary whose decoder rows are the true directions, and that reads them back."""
    truth = planted_in(store)
    sites = tuple(Site(name, 16) for name in names)
    directions = np.concatenate([truth.directions[name] for name in names], axis=1)
    bias = np.concatenate([truth.biases[name] for name in names])
    dictionary = Dictionary(Wiring((Bank(24, sites, sites),)), select_named("topk", {"k": 3}))
    with torch.no_grad():
        dictionary.W_dec.copy_(torch.from_numpy(directions))
        dictionary.W_enc.copy_(torch.from_numpy(directions.T / len(names)))
        dictionary.b_dec.copy_(torch.from_numpy(bias))
        dictionary.b_enc.copy_(-(dictionary.b_dec @ dictionary.W_enc))
    path.mkdir()
    save_dictionary(dictionary, path, {"hook_name": names[0]})
    return path, dictionary, truth


def test_true_directions_score_1_and_their_code_is_compared_row_by_row(tmp_path):
    [store] = planted(tmp_path)
    path, dictionary, truth = saved(tmp_path / "d", store, (STREAM,))
    [result] = evaluate([path], EvaluateSettings(store=str(store.root), batch_size=100))
    found = result.metrics["planted"]
    assert found.features == 24
    assert found.directions.mcc == pytest.approx(1)
    assert found.chance.mcc < 0.8
    rows = np.concatenate([np.arange(*store.rows_of_chunk(c)) for c in split_chunks(store)[1]])
    x = store.read(STREAM, 0, store.rows)[rows]
    on = dictionary.encode(torch.from_numpy(x)).detach().numpy() != 0
    true = truth.codes(0, store.rows)[rows] != 0
    both = (on & true).sum(axis=0)
    assert found.code.firing.precision == pytest.approx((both / on.sum(axis=0)).mean())
    assert found.code.firing.recall == pytest.approx((both / true.sum(axis=0)).mean())
    assert found.code.true_l0 == pytest.approx(true.sum() / len(rows))
    assert found.code.l0 == result.l0
    assert found.code.shrinkage == pytest.approx(result.norm_ratio)


def test_features_of_two_models_are_scored_in_each_store_and_in_both(tmp_path):
    base, chat = planted(tmp_path, kind="models", easy=False, exclusive=0.5)
    names = (f"base:{STREAM}", f"chat:{STREAM}")
    path, _, truth = saved(tmp_path / "both", base, names)
    both = EvaluateSettings(store=str(base.root), paired_with=str(chat.root))
    [result] = evaluate([path], both)
    assert result.metrics["planted"].directions.mcc == pytest.approx(1)
    for store, name in zip((base, chat), names, strict=True):
        alone = saved(tmp_path / store.root.name, store, (name,))[0]
        config = (alone / "cfg.json").read_text().replace(name, STREAM)
        (alone / "cfg.json").write_text(config)
        [result] = evaluate([alone], EvaluateSettings(store=str(store.root)))
        found = result.metrics["planted"]
        assert found.features == len(truth.at(name)[0]) < 24
        assert found.directions.mcc == pytest.approx(1)


def test_a_store_that_was_not_planted_has_no_such_scores(make_store, tmp_path):
    store, _ = make_store(rows=400)
    dictionary = Dictionary.of_site(12, 8, select_named("topk", {"k": 2}))
    save_dictionary(dictionary, tmp_path, {"hook_name": "blocks.0.mlp.hook_post"})
    [result] = evaluate([tmp_path], EvaluateSettings(store=str(store.root)))
    assert "planted" not in result.metrics


def test_what_another_version_planted_is_measured_without_its_truth(tmp_path, monkeypatch):
    [store] = planted(tmp_path)
    path, _, _ = saved(tmp_path / "d", store, (STREAM,))
    monkeypatch.setattr("rkstore.planted.truth.truth_digest", lambda _: "another")
    [result] = evaluate([path], EvaluateSettings(store=str(store.root)))
    assert "planted" not in result.metrics
    assert any("no scores against the truth" in note for note in result.notes)
