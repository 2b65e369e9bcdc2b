"""A kind of dictionary that takes several sites, brought from outside, from the store to disk."""

from typing import ClassVar

import pytest
import torch

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.wirings import WIRINGS, Bank, Wires, Wiring
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.training import train as training
from rkstore.training.checkpoint import STATE, save
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train, train_all

SITES = {f"blocks.{layer}.mlp.hook_post": width for layer, width in enumerate((12, 10, 8))}


class Together(Wires):
    """One bank that reads and writes all sites."""

    name: ClassVar[str] = "together"
    of_several: ClassVar[bool] = True

    def over(self, reads, writes, latents):
        return Wiring((Bank(latents, tuple(reads), tuple(writes)),), centred=True)


@pytest.fixture
def settings(make_store, tmp_path, monkeypatch):
    monkeypatch.setitem(WIRINGS, "together", Together)
    store, _ = make_store("several", rows=400, sites=SITES)
    sizes = {
        "wiring": "together",
        "d_sae": 24,
        "k": 4,
        "steps": 30,
        "batch_size": 32,
        "init": "tied",
    }

    def make(**given):
        given = sizes | {"store": str(store.root), "out": str(tmp_path / "out")} | given
        return TrainSettings(**given)

    return make


def test_it_trains_on_the_same_rows_of_all_its_sites(settings):
    run = prepare(settings())
    batch = next(run.reading.batches(32, seed=0))
    rows = run.reading.rows(batch, "cpu")
    assert list(rows) == list(SITES)
    for name, x in rows.items():
        expected = torch.from_numpy(run.store.read(name)[batch.rows]) * run.reading.scales[name]
        torch.testing.assert_close(x, expected)


def test_it_takes_the_layers_that_are_listed(settings):
    assert prepare(settings(layers="0,2")).reading.hook_names == [*SITES][::2]


def test_what_is_written_is_what_was_trained(settings):
    run, path = prepare(settings()), train(settings())
    dictionary, metadata = load_dictionary(path)
    assert metadata["hook_name"] == ",".join(SITES)
    rows = {name: torch.from_numpy(run.store.read(name)) for name in SITES}
    found, begun = dictionary(rows), run.dictionary.rescaled(run.reading.scales)(rows)
    assert error(found, rows) < 0.95 * error(begun, rows)


def error(found, rows):
    return sum((y - rows[name]).square().sum().item() for name, y in found.items())


def test_a_stopped_run_goes_on_to_the_same_bits(settings, tmp_path, monkeypatch):
    through = train(settings())
    stopped = settings(out=str(tmp_path / "other"), checkpoint_every=10)
    monkeypatch.setattr(training, "save", save_until(20))
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    monkeypatch.undo()
    monkeypatch.setitem(WIRINGS, "together", Together)
    assert (train(stopped) / STATE).read_bytes() == (through / STATE).read_bytes()


def save_until(last):
    def saving(run):
        save(run)
        if run.step == last:
            raise KeyboardInterrupt

    return saving


def test_one_of_one_site_is_trained_beside_it_on_a_reading_of_its_own(settings):
    assert len(train_all([settings(layers="all")])) == 1
    assert len(train_all([settings(wiring="sae", layers="all")])) == 3


def test_it_can_be_measured_at_each_of_its_sites(settings):
    path = train(settings(prefixes=(0.5, 1.0)))
    [result] = evaluate([path], EvaluateSettings(store=settings().store))
    assert (result.hook_name, list(result.sites)) == (",".join(SITES), [*SITES])
    assert [prefix.share for prefix in result.of_prefix] == [0.5, 1]
    assert result.fvu < 1
