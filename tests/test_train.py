"""Training from a store: it learns, it resumes to the bit, it refuses what does not fit."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.settings import TrainSettings
from rkstore.train import STATE, default_name, prepare, schedule, train

SITE = "blocks.0.mlp.hook_post"


@pytest.fixture
def settings(make_store, tmp_path):
    """Call it for settings of a small run."""
    store, _ = make_store(rows=400)

    def make(**given):
        usual = {
            "store": str(store.root),
            "hook": SITE,
            "d_sae": 24,
            "k": 4,
            "steps": 40,
            "batch_size": 32,
            "warmup": 5,
            "out": str(tmp_path / "checkpoints"),
        }
        return TrainSettings(**(usual | given))

    return make


def weights(path):
    return load_file(path / "sae_weights.safetensors")


def history(path):
    return json.loads((path / "training.json").read_text())["history"]


@pytest.mark.parametrize("dictionary", ["relu", "topk"])
@pytest.mark.parametrize("init", ["random", "tied", "rkcnn"])
def test_training_lowers_the_error(settings, dictionary, init):
    path = train(settings(dictionary=dictionary, init=init, steps=200, l1=0.01, rkcnn_m=3))
    fvu = [entry["fvu"] for entry in history(path)]
    assert fvu[-1] < 0.6 * fvu[0]


def test_the_checkpoint_lies_where_the_model_and_the_run_say(settings, tmp_path):
    path = train(settings(name="mine"))
    assert path == tmp_path / "checkpoints" / "sae" / "random" / "mine_40"
    assert (path / "cfg.json").is_file()


def test_the_written_dictionary_works_in_the_units_of_the_store(settings, make_store):
    path = train(settings(steps=200))
    dictionary, metadata = load_dictionary(path)
    _, values = make_store("again", rows=400)
    x = torch.from_numpy(values[SITE])
    fvu = (dictionary(x) - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert fvu.item() == pytest.approx(history(path)[-1]["fvu"], abs=0.1)
    assert metadata["hook_name"] == SITE


def test_decoder_rows_keep_norm_one(settings):
    norms = weights(train(settings()))["W_dec"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(24))


def test_the_same_settings_give_the_same_bytes(settings, tmp_path):
    one = train(settings(out=str(tmp_path / "one")))
    two = train(settings(out=str(tmp_path / "two")))
    for name in ("sae_weights.safetensors", "cfg.json", "training.json", STATE):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("dictionary", ["relu", "topk"])
def test_a_stopped_run_goes_on_to_the_same_bytes(settings, tmp_path, monkeypatch, dictionary):
    through = train(settings(dictionary=dictionary, out=str(tmp_path / "through")))
    stopping = settings(dictionary=dictionary, out=str(tmp_path / "stopped"), checkpoint_every=10)

    import rkstore.train as module

    step = module._step

    def stop_at_25(run, batch):
        if run.step == 25:
            raise KeyboardInterrupt
        step(run, batch)

    monkeypatch.setattr(module, "_step", stop_at_25)
    with pytest.raises(KeyboardInterrupt):
        train(stopping)
    monkeypatch.setattr(module, "_step", step)
    taken_up = train(stopping)
    for name in ("sae_weights.safetensors", "cfg.json", "training.json", STATE):
        assert (taken_up / name).read_bytes() == (through / name).read_bytes(), name


def test_a_finished_run_is_not_trained_again(settings, monkeypatch):
    path = train(settings())
    monkeypatch.setattr("rkstore.train._step", None)
    assert train(settings()) == path


def test_only_the_last_checkpoint_keeps_what_resuming_needs(settings):
    path = train(settings(checkpoint_every=10, name="run"))
    kept = sorted(p.parent.name for p in path.parent.glob(f"*/{STATE}"))
    assert kept == ["run_40"]
    assert len(list(path.parent.glob("run_*/cfg.json"))) == 4


def test_another_run_of_the_same_name_is_refused(settings):
    train(settings(name="run"))
    with pytest.raises(BadInput, match=r"lr was 0.003, is 0.01.*--name"):
        train(settings(name="run", lr=0.01))


def test_default_names_differ_wherever_two_runs_do(settings):
    names = {default_name(settings(**change), SITE) for change in ({}, {"lr": 0.1}, {"seed": 1})}
    assert len(names) == 3
    assert default_name(settings(out="elsewhere"), SITE) in names


def test_the_rate_rises_stays_and_falls_to_zero():
    rates = [schedule(step, 100, 9) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == rates[80] == 1
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0


def test_inputs_are_scaled_to_one_per_dimension(settings):
    run = prepare(settings())
    x = run.store.read(SITE).astype(np.float64) * run.scale
    assert np.square(x).sum(axis=1).mean() == pytest.approx(12, rel=1e-6)


def test_a_layer_that_is_not_in_the_store_is_refused_with_those_that_are(settings):
    with pytest.raises(BadInput, match=r"--layer 7 is not in.*blocks\.0\.mlp\.hook_post"):
        train(settings(hook=None, layer=7))


def test_too_large_a_k_is_refused(settings):
    with pytest.raises(BadInput, match=r"--k is 25.*24 latents"):
        train(settings(k=25))


def test_a_site_of_zeros_is_refused(make_store, settings):
    zeros = {SITE: np.zeros((400, 12), np.float32)}
    store, _ = make_store("zeros", rows=400, values=zeros)
    with pytest.raises(BadInput, match="zero in every row"):
        train(settings(store=str(store.root)))
