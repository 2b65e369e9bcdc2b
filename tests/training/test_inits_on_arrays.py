"""``rkstore.initialise``: a dictionary of any wiring from activations in memory."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import rkstore
from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site
from rkstore.training.inits import INITS

A, B = Site("a", 12), Site("b", 9)
WIRINGS = {
    "autoencoder": Wiring((Bank(20, (A,), (A,)),), centred=True),
    "transcoder": Wiring((Bank(20, (A,), (B,)),)),
    "cross-layer": Wiring((Bank(10, (A,), (A, B)), Bank(10, (B,), (B,)))),
    "crosscoder": Wiring((Bank(20, (A, B), (A, B)),)),
}
WHERE_ROWS_ARE = {"datapoint_share": 1.0, "init_scale": "none"}


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 5, generator=generator).relu()
    return {
        site.hook_name: hidden @ torch.randn(5, site.width, generator=generator) + 1
        for site in (A, B)
    }


def make(wiring):
    return Dictionary(WIRINGS[wiring], select_named("topk", {"k": 4}))


@pytest.mark.parametrize("init", INITS)
def test_every_init_fills_an_autoencoder_of_an_array(x, init):
    dictionary, other = make("autoencoder"), make("autoencoder")
    rkstore.initialise(dictionary, x["a"], init, seed=1)
    rkstore.initialise(other, x["a"].numpy(), init, seed=1)
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(20))
    assert torch.equal(other.W_enc, dictionary.W_enc)
    mean = x["a"].mean(dim=0) if INITS[init].centred else torch.zeros(12)
    torch.testing.assert_close(dictionary.b_dec.detach(), mean)


@pytest.mark.parametrize("init", [name for name, init in INITS.items() if init.any_sites])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_inits_for_any_sites_fill_every_wiring(x, wiring, init):
    dictionary = make(wiring)
    rows = x if len(WIRINGS[wiring].sites) > 1 else x["a"]
    rkstore.initialise(dictionary, rows, init)
    f, _ = dictionary.reconstruct(rows)
    assert (f > 0).any()
    assert all((weights.W_enc != 0).any() for _, weights in dictionary.banks)


@pytest.mark.parametrize("wiring", ["transcoder", "cross-layer"])
def test_encoder_and_decoder_of_a_latent_are_what_is_read_and_written_of_one_token(x, wiring):
    dictionary = make(wiring)
    rkstore.initialise(dictionary, x, "datapoint", **WHERE_ROWS_ARE)
    centred = {name: rows - rows.mean(dim=0) for name, rows in x.items()}
    for bank, weights in dictionary.banks:
        read = normalize(torch.cat([centred[s.hook_name] for s in bank.reads], dim=1), dim=1)
        written = normalize(torch.cat([centred[s.hook_name] for s in bank.writes], dim=1), dim=1)
        tokens = (weights.W_enc.T @ read.T).argmax(dim=1)
        torch.testing.assert_close(weights.W_enc.detach().T, read[tokens], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(weights.W_dec.detach(), written[tokens], atol=1e-5, rtol=1e-4)


def test_a_latent_of_a_crosscoder_is_a_token_at_both_sites(x):
    dictionary = make("crosscoder")
    rkstore.initialise(dictionary, x, "datapoint", **WHERE_ROWS_ARE)
    rows = torch.cat([x["a"], x["b"]], dim=1)
    rows = normalize(rows - rows.mean(dim=0), dim=1)
    found = (dictionary.W_dec @ rows.T).max(dim=1).values
    torch.testing.assert_close(found, torch.ones(20), atol=1e-5, rtol=0)


def test_a_transcoder_starts_in_the_subspace_of_what_it_reads_and_of_what_it_writes(x):
    dictionary = make("transcoder")
    rkstore.initialise(dictionary, x, "subspace", subspace_dim=5)
    for name, weights in (("a", dictionary.W_enc.T), ("b", dictionary.W_dec)):
        basis = torch.linalg.svd(x[name] - x[name].mean(dim=0)).Vh[:5]
        torch.testing.assert_close(weights @ basis.T @ basis, weights, atol=1e-4, rtol=0)


def test_directions_of_a_probe_begin_the_first_latents(x):
    directions = rkstore.mine_directions(x["a"], n_directions=6, n_subsets=20)
    dictionary = make("autoencoder")
    spans = rkstore.initialise(
        dictionary, x["a"], "rkcnn", directions=directions, datapoint_share=0.0
    )
    assert spans == [(0, 6)]
    torch.testing.assert_close(dictionary.W_dec[:6].detach(), directions)


REFUSED = {
    "give a mapping from site to activations": ("crosscoder", lambda x: x["a"], {}),
    "b, which is missing": ("crosscoder", lambda x: {"a": x["a"]}, {}),
    r"shape \(300, 9\)": ("autoencoder", lambda x: x["b"], {}),
    "not finite": ("autoencoder", lambda x: x["a"] / 0, {}),
    "different numbers of rows": ("crosscoder", lambda x: x | {"b": x["b"][:9]}, {}),
    "no option steps": ("autoencoder", lambda x: x["a"], {"steps": 3}),
    "no effect with init datapoint": ("autoencoder", lambda x: x["a"], {"subspace_dim": 3}),
    "choose init random or": ("transcoder", lambda x: x, {"init": "tied"}),
    "needs a row for each of 20": ("autoencoder", lambda x: x["a"][:19], {}),
    "unknown|choose one of": ("autoencoder", lambda x: x["a"], {"init": "xavier"}),
    "does not use the directions": (
        "autoencoder",
        lambda x: x["a"],
        {"directions": torch.eye(12)},
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused(x, words):
    wiring, given, options = REFUSED[words]
    with pytest.raises(BadInput, match=words):
        rkstore.initialise(make(wiring), given(x), **options)


def test_arrays_of_numpy_are_taken_by_name(x):
    one, other = make("crosscoder"), make("crosscoder")
    rkstore.initialise(one, x)
    rkstore.initialise(other, {name: np.asarray(rows) for name, rows in x.items()})
    assert torch.equal(one.W_dec, other.W_dec)


DEDICATED = Wiring((Bank(4, (A,), (A,)), Bank(4, (B,), (B,)), Bank(12, (A, B), (A, B))))


def test_exclusive_latents_begin_with_what_the_other_site_does_not_tell():
    """Five features of both sites, and one of each alone, which fires in few tokens."""
    generator = torch.Generator().manual_seed(0)
    hidden, rare = torch.randn(4000, 5, generator=generator).relu(), torch.zeros(4000, 2)
    rare[::20, 0], rare[7::20, 1] = 3.0, 3.0
    own, x = {}, {}
    for i, site in enumerate((A, B)):
        own[site] = normalize(torch.randn(site.width, generator=generator), dim=0)
        shared = normalize(torch.randn(5, site.width, generator=generator), dim=1)
        x[site.hook_name] = hidden @ shared + rare[:, i : i + 1] * own[site] + 1
    dictionary = Dictionary(DEDICATED, select_named("topk", {"k": 4}))
    rkstore.initialise(dictionary, x, "datapoint", datapoint_share=1.0)
    for site, (_, weights) in zip((A, B), dictionary.banks, strict=False):
        assert (weights.W_dec @ own[site]).max() > 0.95
    _, shared = dictionary.banks[2]
    for site, part in zip((A, B), shared.W_dec.split((12, 9), dim=1), strict=True):
        in_shared = normalize(part, dim=1) @ own[site]
        basis = torch.linalg.svd(x[site.hook_name][1:7] - 1).Vh[:5]  # no rare feature there
        expected = normalize(part, dim=1) @ (basis.T @ basis) @ own[site]
        torch.testing.assert_close(in_shared, expected, atol=0.1, rtol=0)


def test_a_site_that_never_changes_predicts_nothing(x):
    dictionary = Dictionary(DEDICATED, select_named("topk", {"k": 4}))
    rkstore.initialise(dictionary, x | {"b": torch.ones(300, 9)}, "datapoint")
    assert all(weights.W_dec.isfinite().all() for _, weights in dictionary.banks)
