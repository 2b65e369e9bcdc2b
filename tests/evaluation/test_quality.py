"""The quality of latents of whole dictionaries on a store, and the command."""

import json

import numpy as np
import pytest
import torch

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluation.latents.quality import judge
from rkstore.evaluation.latents.settings import QualitySettings
from rkstore.planted.features import plant_features
from rkstore.planted.settings import PlantSettings
from rkstore.planted.store import plant

SITE = "blocks.0.hook_resid_post"
FEATURES = {
    "features": 24,
    "d_in": 48,
    "roots": 1,
    "branching": 8,
    "depth": 1,
    "p_max": 0.4,
    "p_min": 0.012,
    "zipf": 8.0,
    "correlation": 0.0,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A planted store, and what was planted."""
    out = tmp_path_factory.mktemp("planted") / "store"
    settings = PlantSettings(**FEATURES, rows=60_000, codec="float32", out=str(out))
    return plant(settings)[0], plant_features(settings)


def saved(path, planted, absorbing):
    """A dictionary made by hand: the truth, or one whose children have taken their parent over."""
    store, truth = planted
    _, features = truth.at()
    decoders, children = features.astype(np.float64), np.arange(1, 9)
    encoders = np.linalg.pinv(decoders)
    if absorbing:
        mean, _ = truth.magnitudes
        encoders[:, 0] -= 20 * encoders[:, children].sum(axis=1)
        decoders[children] += (mean[0] / mean[children])[:, None] * decoders[0]
    dictionary = Dictionary.of_site(
        48, 24, select_named("jumprelu", {"threshold": 0.1}), hook_name=SITE
    )
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.from_numpy(encoders))
        dictionary.W_dec.copy_(torch.from_numpy(decoders))
        dictionary.b_dec.copy_(torch.from_numpy(truth.biases[SITE]))
    path.mkdir()
    model = store.manifest.source["model"]["name"]
    save_dictionary(dictionary, path, {"model_name": model, "hook_name": SITE})
    return path


@pytest.fixture(scope="module")
def judged(planted, tmp_path_factory):
    """Both dictionaries, from the store alone, with the classes of the planted features."""
    from rkstore.planted.classes import planted_classes

    store, truth = planted
    root = tmp_path_factory.mktemp("dictionaries")
    paths = [saved(root / name, planted, name == "absorbing") for name in ("truth", "absorbing")]
    settings = QualitySettings(store=str(store.where), k=(1, 2))
    return judge(paths, settings, lambda chosen: planted_classes(truth, chosen.rows)), paths


def test_absorption_is_found_where_it_was_planted_and_nowhere_else(judged):
    truth, absorbing = judged[0].qualities
    [honest], [taken] = truth.absorption, absorbing.absorption
    assert honest.name == taken.name == "feature 0"
    assert (honest.main, honest.absorbed, honest.silent) == ((0,), 0, 0)
    assert taken.main == (0,)
    assert taken.absorbed > 0.15
    assert taken.absorbed > 1.5 * taken.absorbed_chance
    assert {latent for latent, _ in taken.absorbers} <= set(range(1, 9))


def test_the_planted_latent_tells_its_class_and_a_random_dictionary_does_not(judged):
    [found] = judged[0].qualities[0].probes
    assert found.latents[0] == 0
    assert found.accuracy["latents"][1].value == 1
    assert found.accuracy["random dictionary"][1].high < 0.98
    assert found.accuracy["latents"][1].shuffled == pytest.approx(0.5, abs=0.06)
    assert set(found.accuracy) == {"latents", "random dictionary", "raw dimensions", "PCA"}


def test_dictionaries_of_the_same_sites_are_compared(judged):
    [pair] = judged[0].pairs
    assert (pair.one, pair.other) == ("truth", "absorbing")
    # All features but the children and their parent's encoder are the same ones.
    assert pair.stability.decoder.matched > 0.8 > pair.stability.decoder_chance.matched


def test_rows_are_held_out_and_documents_whole(judged):
    assert judged[0].unit == "documents"
    assert judged[0].rows <= 60_000 // 10 + 1024
    assert judged[0].groups >= 20


def test_the_same_rows_and_seed_give_the_same_numbers(judged, planted):
    found, paths = judged
    settings = QualitySettings(store=str(planted[0].where), k=(1, 2), batch_size=77)
    from rkstore.planted.classes import planted_classes

    again = judge(paths[:1], settings, lambda chosen: planted_classes(planted[1], chosen.rows))
    assert again.qualities[0].probes == found.qualities[0].probes
    assert again.qualities[0].absorption == found.qualities[0].absorption


def test_the_command_prints_the_tables_and_writes_them(rkstore, planted, judged, tmp_path):
    store, _ = planted
    status, out, err = rkstore("quality", *judged[1], "--store", store.where, "--k", "1")
    assert status == 0, err
    assert "probes of truth" in out
    assert "absorption of absorbing" in out
    assert "truth, absorbing" in out
    written = json.loads((tmp_path / "results/quality/quality.json").read_text())
    assert written["store_fingerprint"] == store.manifest.fingerprint
    assert [one["name"] for one in written["qualities"]] == ["truth", "absorbing"]
    assert (tmp_path / "results/quality/quality.md").read_text().rstrip("\n") in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--classes", "python"], "tokenizer"),
        (["--rows", "0"], "--rows is 0"),
        (["--k", "0"], "--k is 0"),
    ],
)
def test_what_the_store_cannot_have_is_refused(rkstore, planted, judged, words, said):
    status, _, err = rkstore("quality", judged[1][0], "--store", planted[0].where, *words)
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_planted_classes_are_refused_where_nothing_was_planted(rkstore, make_store):
    store, _ = make_store()
    status, _, err = rkstore("quality", "x", "--store", store.where, "--classes", "planted")
    assert status == 2
    assert "was not planted" in err


def test_a_store_without_a_tokenizer_has_spread_and_seeds_and_says_so(make_store, tmp_path):
    store, _ = make_store(rows=4000, shard_rows=400, chunk_rows=40)
    site = store.hook_names[0]
    width = store.manifest.width(site)
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        dictionary = Dictionary.of_site(width, 20, select_named("topk", {"k": 3}), hook_name=site)
        with torch.no_grad():
            for parameter in dictionary.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        (tmp_path / name).mkdir()
        save_dictionary(dictionary, tmp_path / name, {"model_name": "random", "hook_name": site})
    found = judge([tmp_path / "a", tmp_path / "b"], QualitySettings(store=str(store.where)))
    assert len(found.pairs) == 1
    assert found.qualities[0].probes == found.qualities[0].absorption == ()
    assert found.qualities[0].spreads.of_latents.entropy > 0
    assert "has no tokenizer" in found.notes[0]


def test_a_class_without_enough_rows_is_left_out_with_a_sentence(planted, judged):
    def labelled(chosen):
        labels = np.zeros(len(chosen.rows), np.int8)
        labels[:5] = 1
        return {"rare": labels}

    found = judge(judged[1][:1], QualitySettings(store=str(planted[0].where)), labelled)
    assert found.qualities[0].probes == ()
    assert found.notes[0].startswith("left out: rare has 5 rows")


def test_too_few_contexts_are_refused(make_store, tmp_path):
    store, _ = make_store()
    dictionary = Dictionary.of_site(12, 8, select_named("relu", {}), hook_name=store.hook_names[0])
    (tmp_path / "a").mkdir()
    save_dictionary(dictionary, tmp_path / "a", {"hook_name": store.hook_names[0]})
    with pytest.raises(BadInput, match="too few to train probes on some"):
        judge([tmp_path / "a"], QualitySettings(store=str(store.where)))
