"""A random dictionary is as like as it can be, and explains as little as its directions do."""

import pytest
import torch
from test_metrics import ALL, data, dictionary_of

from rkstore.dictionaries import select_named
from rkstore.evaluation.chance import NEAR, random_like
from rkstore.evaluation.measure import Measure

SELECTS = {
    "topk": {"k": 4},
    "abstopk": {"k": 4},
    "batchtopk": {"k": 4},
    "relu": {"l1": 1.0},
    "jumprelu": {},
    "gated": {"l1": 1.0},
}


def fitted():
    return {name: x.float() for name, x in data().items()}


def dictionary(kind, select="topk"):
    return dictionary_of(kind, select_named(select, SELECTS[select])).float()


def decoders(one):
    return torch.cat([weights.W_dec.flatten() for _, weights in one.banks])


@pytest.mark.parametrize("kind", ALL)
def test_it_has_the_wiring_and_other_directions(kind):
    like = dictionary(kind)
    made = random_like(like, fitted(), l0=4.0)
    assert made.wiring == like.wiring
    assert made.pools[0].rule == like.pools[0].rule
    for (_, ours), (_, theirs) in zip(made.banks, like.banks, strict=True):
        assert (ours.W_dec != theirs.W_dec).all()


@pytest.mark.parametrize("kind", ALL)
def test_it_is_no_worse_than_the_mean_of_the_rows_it_was_fitted_to(kind):
    """Its bias is their mean and its gain their least squares."""
    made = random_like(dictionary(kind), fitted(), l0=4.0)
    measure = Measure(made)
    measure.add(fitted())
    zeros = dict.fromkeys(measure.by_site, 0.0)
    found = measure.result("random", zeros)
    assert 0 < found.explained_variance < 1
    for site in found.sites.values():
        assert 0 <= 1 - site.fvu < 1


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("l0", [2.0, 4.0])
def test_as_many_of_its_latents_fire_as_the_select_allows(select, l0):
    made = random_like(dictionary("autoencoder", select), fitted(), l0)
    found = (made.encode(fitted()) != 0).sum() / 60
    if select == "abstopk":  # which keeps k whatever the shift
        assert found == 4
    else:
        # Of sixty rows, a step of the shift changes one entry.
        assert found == pytest.approx(l0, abs=NEAR * l0 + 2 / 60)


def test_the_seed_decides_it():
    like = dictionary("crosscoder")
    one, again, other = (random_like(like, fitted(), 4.0, seed) for seed in (0, 0, 1))
    assert torch.equal(decoders(one), decoders(again))
    assert not torch.equal(decoders(one), decoders(other))


def test_the_dictionary_that_it_is_like_stays_as_it_is():
    like = dictionary("decoupled", "jumprelu")
    before = {name: tensor.clone() for name, tensor in like.state_dict().items()}
    random_like(like, fitted(), 4.0)
    for name, tensor in like.state_dict().items():
        assert torch.equal(tensor, before[name])
