"""Banks: every wiring is a few of them, and all of them encode, decode, train and are saved."""

import copy
import json

import pytest
import torch

from rkstore.dictionaries import SELECTS, Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.dictionaries.sparse import SparseCode
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.objective import Objective

A, B, C = Site("a", 6), Site("b", 8), Site("c", 4)
WIRINGS = {
    "autoencoder": Wiring((Bank(24, (A,), (A,)),), centred=True),
    "transcoder": Wiring((Bank(24, (A,), (B,)),)),
    "with a skip": Wiring((Bank(24, (A,), (B,)),), skip=True),
    "one a layer": Wiring((Bank(12, (A,), (A,)), Bank(12, (B,), (B,))), together=False),
    "cross-layer": Wiring((Bank(12, (A,), (A, B, C)), Bank(8, (B,), (B, C)), Bank(4, (C,), (C,)))),
    "crosscoder": Wiring((Bank(24, (A, B), (A, B)),), centred=True),
    "by the crosscoder norm": Wiring((Bank(24, (A, B), (A, B)),), centred=True, norm="crosscoder"),
    "by the mixed norm": Wiring((Bank(24, (A, B), (A, B)),), norm="mixed"),
    "decoupled": Wiring((Bank(24, (A, B), (A, B)),), centred=True, norm="decoupled"),
    "dedicated": Wiring(
        (Bank(6, (A,), (A,)), Bank(6, (B,), (B,)), Bank(12, (A, B), (A, B))), centred=True
    ),
}
every_wiring = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)


def make_dictionary(wiring, select="topk", k=4):
    dictionary = Dictionary(wiring, select_named(select, {"k": k, "l1": 0.01, "l0": 0.01}))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in dictionary.named_parameters():
        if not name.startswith("select"):
            parameter.data.normal_(generator=generator)
    dictionary.normalise_decoder()
    return dictionary


def make_rows(n=64):
    """Few features behind all sites, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n, 5, generator=generator).relu()
    return {
        site.hook_name: hidden @ torch.randn(5, site.width, generator=generator)
        for site in (A, B, C)
    }


@every_wiring
def test_a_dictionary_is_the_sum_of_its_banks(wiring):
    """Each is an autoencoder over what it reads side by side and what it writes side by side."""
    dictionary, rows = make_dictionary(wiring, "relu"), make_rows()
    widths = [site.width for site in wiring.writes]
    b_dec = dict(zip(wiring.writes, dictionary.b_dec.split(widths), strict=True))
    codes, expected = [], {site.hook_name: b_dec[site] for site in wiring.writes}
    for bank, (W_enc, b_enc, W_dec) in dictionary.banks:
        x = [rows[s.hook_name] - (b_dec[s] if wiring.centred else 0) for s in bank.reads]
        codes.append(torch.relu(torch.cat(x, dim=1) @ W_enc + b_enc))
        if wiring.skip:
            (site,) = bank.writes
            expected[site.hook_name] = expected[site.hook_name] + x[0] @ dictionary.W_skip.T
        parts = (codes[-1] @ W_dec).split([site.width for site in bank.writes], dim=1)
        for site, part in zip(bank.writes, parts, strict=True):
            expected[site.hook_name] = expected[site.hook_name] + part
    f, found = dictionary.reconstruct(rows)
    for view in f if wiring.views > 1 else [f]:
        torch.testing.assert_close(view, torch.cat(codes, dim=1))
    assert found.keys() == expected.keys()
    for name, y in found.items():
        torch.testing.assert_close(y, expected[name])


@every_wiring
def test_a_list_of_what_is_on_is_decoded_as_the_code_is(wiring):
    dictionary, rows = make_dictionary(wiring), make_rows()
    f, expected = dictionary.reconstruct(rows)
    if wiring.views > 1:
        return  # has a code for each site, and so no list
    found = dictionary.restored(SparseCode.of(f), rows)
    assert found.keys() == expected.keys()
    for name, y in found.items():
        torch.testing.assert_close(y, expected[name])


PREFIXES = {
    "plain": WHOLE,
    "matryoshka": Prefixes((0.25, 0.5, 1.0)),
    "by activation": Prefixes((0.25, 0.5, 1.0), order="activations"),
}


# Every select with one kind of prefixes, and one select with every kind: all of them take long.
LEARNING = [(select, "matryoshka") for select in SELECTS]
LEARNING += [("topk", "plain"), ("topk", "by activation")]


@pytest.mark.parametrize(("select", "prefixes"), LEARNING)
@every_wiring
def test_every_wiring_learns_by_every_select_plain_and_nested(wiring, select, prefixes):
    dictionary, rows = make_dictionary(wiring, select), make_rows()
    objective = Objective(PREFIXES[prefixes], [AuxK(auxk=2)])
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=3e-2, fused=True)
    dead, errors = torch.arange(wiring.latents) % 3 == 0, []
    for _ in range(12):
        optimizer.zero_grad()
        losses, _ = objective(dictionary, rows, dead)
        sum(losses.values()).backward()
        dictionary.project_decoder_gradient()
        optimizer.step()
        dictionary.normalise_decoder()
        for pool in dictionary.pools:
            pool.constrain()
        errors.append(losses["reconstruction"].item())
    assert errors[-1] < 0.8 * errors[0]


@every_wiring
def test_nested_reconstructions_are_by_the_first_latents_of_every_bank(wiring):
    dictionary, rows = make_dictionary(wiring, "relu"), make_rows()
    f = dictionary.encode(rows)
    shares = (0.25, 0.5, 1.0)
    for share, found in zip(shares, dictionary.decodings(f, shares, rows=rows), strict=True):
        kept, first = torch.zeros_like(f), 0
        for bank in wiring.banks:
            stop = first + round(share * bank.latents)
            kept[..., first:stop] = f[..., first:stop]
            first += bank.latents
        (expected,) = dictionary.decodings(kept, rows=rows)
        for name, y in found.items():
            torch.testing.assert_close(y, expected[name])


@every_wiring
def test_scales_of_the_sites_fold_into_the_weights(wiring):
    dictionary, rows = make_dictionary(wiring, "relu"), make_rows()
    scales = {"a": 3.0, "b": 0.5, "c": 2.0}
    scaled = {name: scales[name] * x for name, x in rows.items()}
    found, trained = dictionary.rescaled(scales)(rows), dictionary(scaled)
    for name, y in found.items():
        torch.testing.assert_close(y, trained[name] / scales[name], atol=1e-4, rtol=1e-4)


@every_wiring
def test_a_dictionary_survives_a_copy_and_a_state_dict(wiring):
    dictionary, rows = make_dictionary(wiring), make_rows()
    other = make_dictionary(wiring)
    other.load_state_dict(copy.deepcopy(dictionary).state_dict())
    assert torch.equal(other.encode(rows), dictionary.encode(rows))


@every_wiring
def test_a_copy_moves_to_another_precision_as_a_whole(wiring):
    dictionary, rows = make_dictionary(wiring), make_rows()
    double = copy.deepcopy(dictionary).to(torch.float64)
    found = double({name: x.double() for name, x in rows.items()})
    for name, y in dictionary(rows).items():
        torch.testing.assert_close(found[name], y.double(), atol=1e-4, rtol=1e-4)
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    assert {p.dtype for p in dictionary.parameters()} == {torch.float32}


@pytest.mark.parametrize("select", SELECTS)
@every_wiring
def test_at_inference_a_token_is_encoded_as_if_alone(wiring, select):
    dictionary, rows = make_dictionary(wiring, select), make_rows()
    dictionary(rows)  # from which batchtopk learns its thresholds
    dictionary.eval()
    alone = dictionary.encode({name: x[:1] for name, x in rows.items()})
    torch.testing.assert_close(alone, dictionary.encode(rows)[..., :1, :])


@pytest.mark.parametrize("select", SELECTS)
@every_wiring
def test_a_saved_dictionary_loads_the_same(wiring, select, tmp_path):
    dictionary, rows = make_dictionary(wiring, select).eval(), make_rows()
    save_dictionary(dictionary, tmp_path, {"hook_name": "a"})
    loaded, metadata = load_dictionary(tmp_path)
    found, expected = loaded(by_site(loaded, rows)), dictionary(rows)
    for y, wanted in zip(found.values(), expected.values(), strict=True):
        assert torch.equal(y, wanted)
    assert metadata["hook_name"] == "a"


def by_site(dictionary, rows):
    """SAELens' layout does not name the site."""
    return {"x": rows["a"]} if dictionary.wiring.sites[0].hook_name == "x" else rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sites": {"a": 6, "b": 9, "c": 4}}, "do not fit its wiring"),
        ({"sites": {"a": 6, "b": 8.0, "c": 4}}, "not a whole number"),
        ({"banks": []}, "needs banks"),
    ],
)
def test_a_file_whose_tensors_do_not_fit_its_wiring_is_refused(change, said, tmp_path):
    save_dictionary(make_dictionary(WIRINGS["cross-layer"]), tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["wiring"] |= change
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=said):
        load_dictionary(tmp_path)


def test_one_select_ranks_all_banks_unless_each_has_its_own():
    banks, rows = (Bank(12, (A,), (A,)), Bank(12, (B,), (B,))), make_rows()
    together = make_dictionary(Wiring(banks), k=4).encode(rows)
    apart = make_dictionary(Wiring(banks, together=False), k=4).encode(rows)
    assert ((together > 0).sum(dim=1) <= 4).all()
    assert ((apart[:, :12] > 0).sum(dim=1) <= 4).all()
    assert (apart > 0).sum() > (together > 0).sum()


def test_a_tensor_stands_for_the_only_site():
    dictionary, rows = make_dictionary(WIRINGS["autoencoder"]), make_rows()
    assert torch.equal(dictionary(rows["a"]), dictionary(rows)["a"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 6), "reads a, b: give a mapping"),
        ({"a": torch.zeros(3, 6)}, "reads b, which is missing"),
        ({"a": torch.zeros(3, 6), "b": torch.zeros(3, 9)}, "8 wide, not 9"),
    ],
)
def test_rows_that_do_not_fit_the_sites_are_refused(given, said):
    with pytest.raises(BadInput, match=said):
        make_dictionary(WIRINGS["crosscoder"])(given)


@pytest.mark.parametrize(
    ("banks", "centred", "said"),
    [
        ((), False, "needs banks"),
        ((Bank(4, (A,), (Site("a", 7),)),), False, "one width each"),
        ((Bank(0, (A,), (A,)),), False, "positive sizes"),
        ((Bank(4, (A,), (B,)),), True, "bias to centre by"),
    ],
)
def test_a_wiring_that_cannot_be_is_refused(banks, centred, said):
    with pytest.raises(BadInput, match=said):
        Wiring(banks, centred)
