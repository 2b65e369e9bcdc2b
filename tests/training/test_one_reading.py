"""Dictionaries of any wirings on one reading: each chunk once for all, each as if alone."""

from collections import Counter

import pytest
from test_every_wiring import IN, KINDS, OUT
from test_every_wiring import settings as settings  # a fixture

from rkstore.store.batches import assemble
from rkstore.training.checkpoint import STATE
from rkstore.training.train import train, train_all

SAE = {"wiring": "sae", "layer": "1", "hook": "mlp.hook_in"}
OF_ONE_MODEL = [SAE, *(kind for kind in KINDS.values() if kind.get("of") != "two")]


@pytest.fixture
def read(monkeypatch):
    """How often each chunk of each site was read for batches."""
    counted, real = Counter(), assemble.Reader._load

    def counting(self, name, chunk, *out):
        counted[name, chunk] += 1
        return real(self, name, chunk, *out)

    monkeypatch.setattr(assemble.Reader, "_load", counting)
    return counted


def chosen(settings, **given):
    # In one epoch, so that a chunk is read once for one dictionary.
    return [settings(**kind, steps=6, **given) for kind in OF_ONE_MODEL]


def test_each_chunk_is_read_once_however_many_dictionaries_read_it(settings, read):
    train_all(chosen(settings))
    assert {name for name, _ in read} == IN.keys() | OUT.keys()
    assert set(read.values()) == {1}


def test_those_of_all_wirings_have_the_bytes_of_each_trained_alone(settings, tmp_path):
    together = train_all(chosen(settings))
    for one, path in zip(chosen(settings, out=str(tmp_path / "alone")), together, strict=True):
        alone = train(one)
        for name in ("sae_weights.safetensors", "cfg.json", "training.json", STATE):
            assert (path / name).read_bytes() == (alone / name).read_bytes(), (path, name)


def test_one_of_each_layer_and_one_of_all_layers_share_a_reading(settings, read):
    each = settings(wiring="sae", layers="all", hook="mlp.hook_in", steps=6)
    several = settings(wiring="crosscoder", layers="all", hook="mlp.hook_in", steps=6)
    paths = train_all([each, several, settings(**SAE, k=2, steps=6)])
    assert len(set(paths)) == 5
    assert set(read.values()) == {1}


def test_layer_after_layer_reads_each_chunk_once_too(settings, read):
    each = [
        settings(wiring=w, layers="all", hook="mlp.hook_in", steps=6) for w in ("sae", "transcoder")
    ]
    assert len(train_all(each)) == 6
    assert {read[name, chunk] for name, chunk in read} == {1}


def test_a_control_arm_of_any_wiring_reads_with_its_dictionary(settings, read):
    train_all([settings(**KINDS["clt"], steps=6, controls=True)])
    assert set(read.values()) == {1}
