"""Two seeds compared: the same latents in another order score 1, random ones chance."""

from itertools import permutations

import numpy as np
import pytest
import torch

from rkstore.dictionaries import select_named
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.latents import matching
from rkstore.evaluation.latents.directions import decoder_directions, encoder_directions
from rkstore.evaluation.latents.matching import chance, match, stability
from rkstore.store.sites import Site


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_same_latents_in_another_order_and_length_are_the_same():
    one = drawn(30, 8)
    order = np.random.default_rng(1).permutation(30)
    other = (one * np.linspace(0.1, 9, 30)[:, None])[order]
    found, partners, cosines = match(one, other)
    assert (found.mmcs, found.matched, found.same) == pytest.approx((1, 1, 1))
    assert (order[partners] == np.arange(30)).all()
    assert cosines == pytest.approx(np.ones(30))


def test_a_latent_that_points_the_other_way_is_another_one():
    one = np.eye(4)
    assert match(one, -one)[0].matched == pytest.approx(0)


def test_the_matching_has_the_largest_sum_of_all():
    one, other = drawn(5, 3), drawn(5, 3, seed=1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other)]
    cosines = unit[0] @ unit[1].T
    best = max(np.mean([cosines[i, j] for i, j in enumerate(p)]) for p in permutations(range(5)))
    found = match(one, other)[0]
    assert found.matched == pytest.approx(best)
    assert found.mmcs == pytest.approx(
        (cosines.max(axis=0).mean() + cosines.max(axis=1).mean()) / 2
    )


def test_a_smaller_dictionary_is_matched_as_a_whole_from_either_side():
    one, other = drawn(5, 4), drawn(9, 4, seed=1)
    assert match(one, other)[0] == match(other, one)[0]
    assert len(match(one, other)[1]) == 5


def test_random_directions_score_at_their_chance():
    found = stability(
        (drawn(80, 16), drawn(80, 16, seed=1)), (drawn(80, 24), drawn(80, 24, seed=1))
    )
    assert vars(found.decoder) == pytest.approx(vars(found.decoder_chance), abs=0.05)
    assert vars(found.encoder) == pytest.approx(vars(found.encoder_chance), abs=0.05)
    assert found.agree < 0.05
    assert chance((80, 16), (80, 16)).matched > 0.3


def test_latents_agree_where_encoders_and_decoders_name_the_same_partner():
    decoder, encoder = np.eye(6), np.eye(6)
    swapped = encoder[[1, 0, 2, 3, 4, 5]]
    assert stability((decoder, decoder), (encoder, encoder)).agree == 1
    assert stability((decoder, decoder), (encoder, swapped)).agree == pytest.approx(4 / 6)


def test_other_sites_and_too_many_latents_are_refused(monkeypatch):
    with pytest.raises(BadInput, match="dictionaries of the same sites"):
        match(drawn(3, 4), drawn(3, 5))
    monkeypatch.setattr(matching, "MOST", 5)
    with pytest.raises(BadInput, match="matching 6 latents"):
        match(drawn(6, 4), drawn(5, 4))


def test_directions_of_several_sites_are_side_by_side_each_by_its_size():
    a, b, c = Site("a", 2), Site("b", 3), Site("c", 4)
    wiring = Wiring((Bank(5, (a,), (b, c)), Bank(6, (a, b), (c,))), together=False)
    dictionary = Dictionary(wiring, select_named("relu", {}))
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    sizes = {"a": 2.0, "b": 10.0, "c": 4.0}
    decoder, encoder = (of(dictionary, sizes) for of in (decoder_directions, encoder_directions))
    (_, first), (_, second) = dictionary.banks
    assert decoder[:5, :3] == pytest.approx(first.W_dec[:, :3].detach().numpy() / 10)
    assert decoder[:5, 3:] == pytest.approx(first.W_dec[:, 3:].detach().numpy() / 4)
    assert not decoder[5:, :3].any()
    assert decoder[5:, 3:] == pytest.approx(second.W_dec.detach().numpy() / 4)
    assert encoder[:5, :2] == pytest.approx(2 * first.W_enc.T.detach().numpy())
    assert not encoder[:5, 2:].any()
    assert encoder[5:, 2:] == pytest.approx(10 * second.W_enc[2:].T.detach().numpy())
