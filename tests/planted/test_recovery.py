"""Planted features are found again: by every select in every wiring, plain and nested.

Each dictionary is trained as ``rkstore train`` would, on a store on disk, and compared with the
truth: the mean over features of the largest cosine with any latent, decoders of all written sites
side by side. An SAE is to reach 0.9; every other wiring three quarters of the way from random
directions to the SAE of the same select.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import split
from rkstore.dictionaries.selects import SELECTS
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.planted.features import Planted
from rkstore.planted.scores import direction_scores
from rkstore.planted.settings import KINDS, PlantSettings
from rkstore.planted.store import plant
from rkstore.planted.truth import planted_in
from rkstore.store.store import Store
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

FEATURES, SEED = 36, 1
L0 = 2  # of the truth: 1.2

PLANTED = {"easy": True, "features": FEATURES, "d_in": (32,), "rows": 8192, "seed": SEED}
TRAINED = {"d_sae": 3 * FEATURES, "steps": 180, "batch_size": 256, "lr": 0.02, "warmup": 20}
# Rows of so few features would be nearly features themselves: latents begin at random.
TRAINED |= {"init": "random", "init_scale": "reconstruction", "center": "mean", "seed": SEED}

# Of every select, options that leave about as many latents on as features fire. Thresholds begin
# near where they end: a step of Adam moves them by the learning rate, whatever the weight.
TUNED = {
    "relu": {"l1": 2.0},
    "topk": {"k": L0},
    "batchtopk": {"k": L0},
    "jumprelu": {"l0": 2.0, "threshold": 0.4, "bandwidth": 2.0},
    "gated": {"l1": 4.0},
    "abstopk": {"k": L0},
}
FORMS = {"plain": (1.0,), "nested": (0.5, 1.0)}

SAE_BAR, SHARE_OF_WAY = 0.9, 0.75


@dataclass(frozen=True)
class Wired:
    """A wiring, the kind of planted store that it is trained on, and its options."""

    wiring: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


# Latents are counted in each layer; the last one reads all features.
EXCLUSIVE = {"exclusive": (0.125, 0.125)}
BY_LAYER = {"layers": "all", "d_sae": 64}
WIRED = {
    "sae": Wired("sae", "sae"),
    "transcoder": Wired("transcoder", "transcoder"),
    "per-layer": Wired("per-layer", "layers", BY_LAYER),
    "clt": Wired("clt", "layers", BY_LAYER),
    "crosscoder of layers": Wired("crosscoder", "crosscoder"),
    "crosscoder of models": Wired("crosscoder", "models"),
    "dfc": Wired("dfc", "models", EXCLUSIVE),
    "dfc from rows": Wired("dfc", "models", EXCLUSIVE | {"init": "datapoint"}),
}
every_select = pytest.mark.parametrize("select", SELECTS)


@dataclass(frozen=True)
class Found:
    """A trained dictionary and the features of its store."""

    dictionary: Dictionary
    planted: Planted

    @property
    def recovery(self) -> float:
        return self._mean(recovery)

    @property
    def chance(self) -> float:
        """The same of random directions with the same zeros, mean of three draws."""
        return self._mean(chance)

    def _mean(self, of) -> float:
        return float(np.mean([of(decoder, features) for decoder, features in self._compared()]))

    def _compared(self):
        """Decoders and the features that they can know."""
        wiring = self.dictionary.wiring
        if wiring.together or len(wiring.banks) == 1:
            sites = wiring.writes
            decoders = [side_by_side(b, w.W_dec, sites) for b, w in self.dictionary.banks]
            names = [site.hook_name for site in sites]
            yield np.concatenate(decoders), self.planted.at(*names)[1]
        else:  # transcoders that see one layer only: what earlier layers write they cannot know
            for bank, weights in self.dictionary.banks:
                yield side_by_side(bank, weights.W_dec, bank.writes), self.written(bank)

    def written(self, bank, *sites):
        """What the features that a bank reads write to some sites, by default to all of its own."""
        read, _ = self.planted.at(*(site.hook_name for site in bank.reads))
        chosen = sites or bank.writes
        return np.concatenate(
            [self.planted.directions[site.hook_name][read] for site in chosen], axis=1
        )


def side_by_side(bank, W_dec, sites):
    """``(latents, Σ width)``, zero at the sites that the bank does not write."""
    there = dict(split(W_dec.detach(), bank.writes))
    return torch.cat(
        [there.get(site, torch.zeros(bank.latents, site.width)) for site in sites], dim=1
    ).numpy()


def recovery(decoder, features) -> float:
    return direction_scores(decoder, features).mean_max_cosine


def chance(decoder, features) -> float:
    generator = np.random.default_rng(0)
    drawn = (generator.standard_normal(decoder.shape) * (decoder != 0) for _ in range(3))
    return float(np.mean([recovery(random, features) for random in drawn]))


def way(decoder, features) -> float:
    """How far from random directions, 0, to all features, 1."""
    random = chance(decoder, features)
    return (recovery(decoder, features) - random) / (1 - random)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A planted store of every kind: its directory, and that of the second model."""
    root, made = tmp_path_factory.mktemp("planted"), {}
    for kind in KINDS:
        found = plant(PlantSettings(kind=kind, out=str(root / kind), **PLANTED))
        made[kind] = [str(store.root) for store in found]
    return made


@pytest.fixture(scope="module")
def find(stores, tmp_path_factory):
    """Call it with a name in ``WIRED``, a select and a form; trains each once."""
    out, done = tmp_path_factory.mktemp("checkpoints"), {}

    def found(name: str, select: str, form: str) -> Found:
        if (name, select, form) not in done:
            wired = WIRED[name]
            store, second = (*stores[wired.kind], None)[:2]
            where = {"store": store, "paired_with": second, "out": str(out)}
            given = {"wiring": wired.wiring, "dictionary": select, "prefixes": FORMS[form]}
            given |= where | {"name": f"{name}-{select}-{form}"}
            path = train(TrainSettings(**TRAINED | TUNED[select] | wired.options | given))
            done[name, select, form] = Found(load_dictionary(path)[0], planted_in(Store(store)))
        return done[name, select, form]

    return found


def test_every_wiring_is_tried():
    assert {wired.wiring for wired in WIRED.values()} == set(WIRINGS)


@pytest.mark.parametrize("form", FORMS)
@every_select
def test_an_sae_recovers_the_features(find, select, form):
    assert find("sae", select, form).recovery > SAE_BAR


@pytest.mark.parametrize("form", FORMS)
@every_select
@pytest.mark.parametrize("name", [name for name in WIRED if name != "sae"])
def test_every_other_wiring_comes_near_the_sae_of_the_same_select(find, name, select, form):
    found, sae = find(name, select, form), find("sae", select, form)
    assert found.recovery > found.chance + SHARE_OF_WAY * (sae.recovery - found.chance)


@every_select
def test_a_cross_layer_transcoder_recovers_what_each_layer_writes_to_each(find, select):
    found = find("clt", select, "plain")
    for bank, weights in found.dictionary.banks:
        for site, W_dec in split(weights.W_dec.detach(), bank.writes):
            assert way(W_dec.numpy(), found.written(bank, site)) > 0.5, (bank.reads, site)


@every_select
@pytest.mark.parametrize(("name", "bar"), [("dfc", 0.4), ("dfc from rows", 0.7)])
def test_dedicated_latents_find_features_of_their_own_model_alone(find, select, name, bar):
    """Not all: shared latents may take such a feature, and these one that is shared."""
    found, ways = find(name, select, "plain"), []
    for bank, weights in found.dictionary.banks[:2]:
        [own] = bank.writes
        [other] = {*found.dictionary.wiring.writes} - {own}
        here, there = (found.planted.directions[site.hook_name] for site in (own, other))
        ways.append(way(weights.W_dec.detach().numpy(), here[~there.any(axis=1)]))
    assert np.mean(ways) > bar
