"""Helpers: each loss and its gradient against its formula, and where it vanishes."""

import math
from typing import ClassVar

import pytest
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site
from rkstore.training.fast import covers
from rkstore.training.helpers import HELPERS
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.base import Helper
from rkstore.training.helpers.delta import Delta
from rkstore.training.helpers.entropy import Entropy
from rkstore.training.helpers.ghost import Ghost
from rkstore.training.helpers.resample import Resampling
from rkstore.training.helpers.temporal import Temporal
from rkstore.training.objective import Objective

A, B = Site("a", 6), Site("b", 6)
D_SAE, N = 20, 12

WIRINGS = {
    "sae": Wiring((Bank(D_SAE, (A,), (A,)),), centred=True),
    "transcoder with a skip": Wiring((Bank(D_SAE, (A,), (B,)),), skip=True),
    "crosscoder": Wiring((Bank(D_SAE, (A, B), (A, B)),)),
    "weighed": Wiring((Bank(D_SAE, (A, B), (A, B)),), norm="crosscoder"),
    "decoupled": Wiring((Bank(D_SAE, (A, B), (A, B)),), norm="decoupled"),
    "per-layer": Wiring((Bank(8, (A,), (A,)), Bank(12, (B,), (B,))), together=False),
    "cross-layer": Wiring((Bank(8, (A,), (A, B)), Bank(12, (B,), (B,)))),
    "dedicated": Wiring((Bank(4, (A,), (A,)), Bank(4, (B,), (B,)), Bank(12, (A, B), (A, B)))),
}
in_every_wiring = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)
NONE = torch.zeros(D_SAE, dtype=torch.bool)
SOME = torch.arange(D_SAE) % 3 == 0

ASKED_FOR = {
    "auxk": AuxK(auxk=4),
    "resample": Resampling(resample_every=5),
    "ghost": Ghost(ghost_gradients=True),
    "delta": Delta(delta=0.7),
    "entropy": Entropy(entropy=0.3),
    "temporal": Temporal(temporal=0.5),
}


def make_dictionary(wiring, select="topk"):
    dictionary = Dictionary(wiring, select_named(select, {"k": 5, "l1": 0.3}))
    generator = torch.Generator().manual_seed(0)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    return dictionary


def make_rows(n=N):
    generator = torch.Generator().manual_seed(1)
    return {site.hook_name: torch.randn(n, site.width, generator=generator) for site in (A, B)}


def beside(rows, wiring):
    return torch.cat([rows[site.hook_name] for site in wiring.writes], dim=1)


def term(helper, dictionary, rows, dead=NONE, pressure=1.0):
    """The loss of a helper, and its gradients."""
    losses, _ = Objective(helpers=[helper])(dictionary, rows, dead, pressure)
    return losses[helper.name], gradients(dictionary, losses[helper.name])


def gradients(dictionary, loss):
    return torch.autograd.grad(loss, list(dictionary.parameters()), materialize_grads=True)


def check(dictionary, found, expected, scale=1.0):
    loss, of_loss = found
    torch.testing.assert_close(loss, scale * expected)
    for a, b in zip(of_loss, gradients(dictionary, expected), strict=True):
        torch.testing.assert_close(a, scale * b, rtol=1e-4, atol=1e-5)


# What every helper has in common.


def test_every_helper_is_off_by_default_and_asked_for_here():
    assert {*ASKED_FOR} == {*HELPERS}
    assert not any(helper().asked_for for helper in HELPERS.values())
    assert all(helper.asked_for for helper in ASKED_FOR.values())


def test_a_loss_that_is_not_written_by_hand_is_left_to_autograd():
    dictionary = make_dictionary(WIRINGS["crosscoder"])
    by_hand = {name for name in HELPERS if covers(dictionary, Objective(helpers=[ASKED_FOR[name]]))}
    assert by_hand == {"auxk", "resample", "delta"}


@in_every_wiring
@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_works_with_a_wiring_or_says_that_it_does_not(name, wiring):
    helper, dictionary = ASKED_FOR[name], make_dictionary(wiring)
    if name == "delta" and len(wiring.writes) == 1:
        with pytest.raises(BadInput, match="needs a dictionary that writes two sites"):
            helper.check(wiring)
        return
    helper.check(wiring)
    losses, _ = Objective(helpers=[helper])(dictionary, make_rows(), SOME)
    assert all(loss.isfinite() for loss in losses.values())
    assert (name in losses) == (type(helper).loss is not Helper.loss)


@pytest.mark.parametrize("name", ["auxk", "ghost"])
@in_every_wiring
def test_what_helps_dead_latents_vanishes_where_none_is_dead(name, wiring):
    dictionary, rows = make_dictionary(wiring), make_rows()
    losses, _ = Objective(helpers=[ASKED_FOR[name]])(dictionary, rows, NONE)
    plain, _ = Objective()(dictionary, rows, NONE)
    assert losses == plain


@pytest.mark.parametrize("name", ["ghost", "entropy", "temporal"])
def test_under_autocast_it_is_about_the_same(name):
    dictionary, rows = make_dictionary(WIRINGS["sae"], "relu"), make_rows()
    exact, _ = term(ASKED_FOR[name], dictionary, rows, SOME)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, of_loss = term(ASKED_FOR[name], dictionary, rows, SOME)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
    assert all(gradient.isfinite().all() for gradient in of_loss)


# Ghost gradients.


def ghost_of(dictionary, rows, dead):
    """Jermyn & Templeton's steps, one after another."""
    wiring = dictionary.wiring
    (decoded,) = dictionary.decodings(dictionary.code(dictionary.pre(rows)), rows=rows)
    error = (beside(rows, wiring) - beside(decoded, wiring)).detach()
    g = dictionary.pre(rows)[:, dead].exp() @ dictionary.W_dec[dead]
    g = g * (error.norm(dim=1) / g.norm(dim=1) / 2).detach().unsqueeze(1)
    mse, ghost = error.square().sum(dim=1).mean(), (error - g).square().sum(dim=1).mean()
    return (mse / ghost).detach() * ghost


@pytest.mark.parametrize("select", ["relu", "topk", "abstopk", "gated", "jumprelu"])
@pytest.mark.parametrize("kind", ["sae", "transcoder with a skip", "crosscoder"])
def test_ghost_gradients_are_those_of_the_formula(kind, select):
    dictionary, rows = make_dictionary(WIRINGS[kind], select), make_rows()
    found = term(ASKED_FOR["ghost"], dictionary, rows, SOME)
    check(dictionary, found, ghost_of(dictionary, rows, SOME))


def test_the_ghosts_of_a_layer_answer_for_the_sites_that_they_write():
    """The error of a layer without dead latents is not theirs to lower."""
    dictionary, rows = make_dictionary(WIRINGS["per-layer"]), make_rows()
    dead = torch.arange(D_SAE) < 3  # of the first bank
    loss, of_loss = term(ASKED_FOR["ghost"], dictionary, rows, dead)
    error = dictionary(rows)["a"] - rows["a"]
    torch.testing.assert_close(loss, error.square().sum(dim=1).mean())
    moved = {
        name for (name, _), g in zip(dictionary.named_parameters(), of_loss, strict=True) if g.any()
    }
    assert moved == {"W_enc_0", "b_enc_0", "W_dec_0"}


def test_ghost_gradients_reach_dead_latents_alone():
    dictionary = make_dictionary(WIRINGS["sae"])
    _, of_loss = term(ASKED_FOR["ghost"], dictionary, make_rows(), SOME)
    found = dict(zip(dict(dictionary.named_parameters()), of_loss, strict=True))
    for by_latent in (found["W_enc"].T, found["W_dec"], found["b_enc"].unsqueeze(1)):
        assert torch.equal(by_latent.any(dim=1), SOME)


def test_ghosts_of_any_size_are_finite():
    large = make_dictionary(WIRINGS["sae"])
    with torch.no_grad():
        large.b_enc[SOME] += 1000
    loss, of_loss = term(ASKED_FOR["ghost"], large, make_rows(), SOME)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in of_loss)


# Entropy.


def entropy_of(f):
    """Of one token, in nats."""
    p = f[f != 0].abs() / f.abs().sum()
    return -(p * p.log()).sum()


@pytest.mark.parametrize("select", ["relu", "topk", "abstopk"])
@pytest.mark.parametrize("kind", ["sae", "transcoder with a skip", "crosscoder", "per-layer"])
def test_the_entropy_penalty_is_that_of_its_formula(kind, select):
    dictionary, rows = make_dictionary(WIRINGS[kind], select), make_rows()
    found = term(ASKED_FOR["entropy"], dictionary, rows, pressure=0.5)
    expected = torch.stack([entropy_of(f) for f in dictionary.encode(rows)]).mean()
    check(dictionary, found, expected, scale=0.3 * 0.5)


def test_a_code_norm_weighs_the_entropy_so_that_no_decoder_evades_it():
    dictionary, rows = make_dictionary(WIRINGS["weighed"]), make_rows()
    norms = sum(part.norm(dim=1) for part in dictionary.W_dec.split(6, dim=1))
    code = dictionary.encode(rows) * norms
    expected = torch.stack([entropy_of(f) for f in code]).mean()
    check(dictionary, term(ASKED_FOR["entropy"], dictionary, rows), expected, scale=0.3)


@pytest.mark.parametrize(("on", "entropy"), [(0, 0.0), (1, 0.0), (4, math.log(4))])
def test_the_entropy_of_so_many_equal_latents(on, entropy):
    class Given(Entropy):
        name: ClassVar[str] = "given"

    dictionary = Dictionary(WIRINGS["sae"], select_named("relu", {"l1": 0.0}))
    dictionary.b_enc.data[:on] = 3.0
    loss, of_loss = term(Given(entropy=1.0), dictionary, make_rows())
    assert loss.item() == pytest.approx(entropy)
    assert all(gradient.isfinite().all() for gradient in of_loss)


# Temporal contrast.


def contrast_of(code):
    """Of tokens in pairs, the earlier first: term by term."""
    before, after = code[::2], code[1::2]
    s = torch.stack([torch.stack([cosine(a, b) for b in before]) for a in after])
    later, earlier = -s.log_softmax(dim=1).diagonal(), -s.log_softmax(dim=0).diagonal()
    return (later.mean() + earlier.mean()) / 2


def cosine(a, b):
    """0 for a token without any of these latents."""
    return a @ b / (a.norm() * b.norm()).clamp_min(1e-12)


@pytest.mark.parametrize("kind", ["sae", "transcoder with a skip", "crosscoder"])
def test_the_contrast_is_that_of_its_formula_on_the_first_latents(kind):
    dictionary, rows = make_dictionary(WIRINGS[kind], "relu"), make_rows()
    helper = Temporal(temporal=0.5, temporal_share=0.4)
    expected = contrast_of(dictionary.encode(rows)[:, :8])
    check(dictionary, term(helper, dictionary, rows), expected, scale=0.5)


def test_the_first_latents_are_those_of_every_bank():
    dictionary, rows = make_dictionary(WIRINGS["per-layer"], "relu"), make_rows()
    first = [*range(4), *range(8, 14)]
    expected = contrast_of(dictionary.encode(rows)[:, first])
    helper = Temporal(temporal=1.0, temporal_share=0.5)
    check(dictionary, term(helper, dictionary, rows), expected)


def test_a_code_for_each_site_is_contrasted_side_by_side():
    dictionary, rows = make_dictionary(WIRINGS["decoupled"], "relu"), make_rows()
    code = torch.cat([f[:, :10] for f in dictionary.encode(rows)], dim=1)
    helper = Temporal(temporal=1.0, temporal_share=0.5)
    check(dictionary, term(helper, dictionary, rows), contrast_of(code))


@pytest.mark.parametrize("share", [0.0, 0.01, 1.5])
def test_a_share_that_is_no_latent_or_more_than_all_is_refused(share):
    with pytest.raises(BadInput, match="temporal_share"):
        Temporal(temporal=1.0, temporal_share=share).check(WIRINGS["sae"])
    Temporal(temporal_share=share).check(WIRINGS["sae"])
