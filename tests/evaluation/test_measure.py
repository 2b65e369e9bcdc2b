"""Dictionaries of several sites: each number against NumPy, on rows far from zero."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.prefixes import Prefixes
from rkstore.dictionaries.selects import Select
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation import evaluate as evaluation
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.lifetimes import Lifetimes
from rkstore.evaluation.measure import Measure
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.store.batches.plan import split_chunks
from rkstore.store.sites import Site

A, B, C = SITES = Site("blocks.0.in", 4), Site("blocks.1.in", 6), Site("blocks.1.out", 5)
N = 60

CODEC = {A.hook_name: 0.1, B.hook_name: 0.2, C.hook_name: 0.3}

WIRINGS = {
    "transcoder": Wiring((Bank(12, (A,), (C,)),)),
    "skip": Wiring((Bank(12, (A,), (C,)),), skip=True),
    "per layer": Wiring((Bank(6, (A,), (B,)), Bank(6, (B,), (C,))), together=False),
    "cross-layer": Wiring((Bank(6, (A,), (B, C)), Bank(6, (B,), (C,)))),
    "crosscoder": Wiring((Bank(12, SITES, SITES),), norm="crosscoder"),
    "decoupled": Wiring((Bank(12, SITES, SITES),), norm="decoupled"),
    "dedicated": Wiring((Bank(4, (A,), (A,)), Bank(4, (B,), (B,)), Bank(4, (A, B), (A, B)))),
}

RELU = select_named("relu", {})

SHARES = (0.0, 0.25, 0.5, 1.0)


class Signed(Select):
    """Everything below -1 and above 1 stays."""

    name = "signed"
    signed: ClassVar[bool] = True

    def code(self, pre, kept):  # noqa: ARG002
        return pre * (pre.abs() > 1)


def rows(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        site.hook_name: 50 * (i + 1) + (i + 1) * torch.randn(n, site.width, generator=generator)
        for i, site in enumerate(SITES)
    }


def made(wiring, select=None):
    """A dictionary of random weights; its biases centre the codes."""
    dictionary = Dictionary(wiring, select or select_named("topk", {"k": 3})).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        dictionary.b_dec += torch.cat([rows()[s.hook_name].mean(dim=0) for s in wiring.writes])
        mean = dictionary.pre(rows()).mean(dim=0)
        for (_, weights), part in zip(
            dictionary.banks, mean.split([bank.latents for bank in wiring.banks]), strict=True
        ):
            weights.b_enc.sub_(part)
    return dictionary


def measured(dictionary, x, batch=7, prefixes=None):
    measure = Measure(dictionary, prefixes or Prefixes())
    for start in range(0, len(x[A.hook_name]), batch):
        measure.add({name: part[start : start + batch] for name, part in x.items()})
    return measure.result("it", CODEC)


def variation(y):
    return np.square(y - y.mean(axis=0)).sum()


def double(tensors):
    return {name: x.detach().double().numpy() for name, x in tensors.items()}


@pytest.mark.parametrize("kind", WIRINGS)
def test_the_numbers_of_each_site_and_of_all_are_those_of_numpy(kind):
    dictionary, x = made(WIRINGS[kind]), rows()
    result, found, y = measured(dictionary, x), double(dictionary(x)), double(x)
    errors = {name: np.square(found[name] - y[name]).sum() for name in found}
    variations = {name: variation(y[name]) for name in found}
    assert result.fvu == pytest.approx(sum(errors.values()) / sum(variations.values()))
    assert result.mse == pytest.approx(sum(errors.values()) / N)
    side_by_side = [np.hstack([one[name] for name in found]) for one in (found, y)]
    norms = [np.linalg.norm(one, axis=1) for one in side_by_side]
    assert result.norm_ratio == pytest.approx((norms[0] / norms[1]).mean())
    cosines = np.multiply(*side_by_side).sum(axis=1) / np.multiply(*norms)
    assert result.cosine == pytest.approx(cosines.mean())
    if len(found) == 1:
        assert not result.sites
        return
    for name, site in result.sites.items():
        assert site.fvu == pytest.approx(errors[name] / variations[name])
        assert site.mse == pytest.approx(errors[name] / N)
        ratio = np.linalg.norm(found[name], axis=1) / np.linalg.norm(y[name], axis=1)
        assert site.norm_ratio == pytest.approx(ratio.mean())
        assert site.codec_fvu == CODEC[name]
    assert list(result.sites) == list(found)
    lost = sum(CODEC[name] * part for name, part in variations.items())
    assert result.codec_fvu == pytest.approx(lost / sum(variations.values()))


@pytest.mark.parametrize("kind", WIRINGS)
def test_a_latent_fires_where_its_code_is_not_zero_at_any_site(kind):
    dictionary, x = made(WIRINGS[kind], Signed()), rows()
    f = dictionary.encode(x).detach().numpy()
    on = (f != 0).any(axis=0) if kind == "decoupled" else f != 0
    result = measured(dictionary, x)
    assert (f < 0).any()
    assert result.l0 == pytest.approx(on.sum() / N)
    assert result.dead == (~on.any(axis=0)).sum()


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("order", ["latents", "activations"])
def test_each_prefix_is_measured_by_itself(kind, order):
    wiring = WIRINGS[kind]
    dictionary, x = made(wiring), rows()
    result = measured(dictionary, x, prefixes=Prefixes(SHARES, order))
    f = dictionary.encode(x).detach()
    y, total = double(x), sum(variation(double(x)[s.hook_name]) for s in wiring.writes)
    assert [prefix.share for prefix in result.of_prefix] == list(SHARES)
    for prefix in result.of_prefix:
        kept = f * (first(wiring, prefix.share) if order == "latents" else largest(f, prefix.share))
        (decoded,) = dictionary.decodings(kept, rows=x)
        found = double(decoded)
        error = sum(np.square(found[name] - y[name]).sum() for name in found)
        assert prefix.fvu == pytest.approx(error / total)
        on = (kept != 0).any(dim=0) if kind == "decoupled" else kept != 0
        assert prefix.l0 == pytest.approx(on.sum().item() / N)


def first(wiring, share):
    """A mask of the first latents of each bank."""
    parts = [torch.arange(bank.latents) < round(bank.latents * share) for bank in wiring.banks]
    return torch.cat(parts)


def largest(f, share):
    """A mask of the most active latents of each token."""
    kept = torch.zeros_like(f, dtype=torch.bool)
    for token in np.ndindex(f.shape[:-1]):
        on = f[token].nonzero().flatten()
        ordered = on[f[token][on].abs().argsort(descending=True)]
        kept[token][ordered[: round(len(on) * share)]] = True
    return kept


@pytest.mark.parametrize("kind", WIRINGS)
def test_the_last_prefix_is_the_whole(kind):
    result = measured(made(WIRINGS[kind]), rows(), prefixes=Prefixes(SHARES))
    last = result.of_prefix[-1]
    assert (last.share, last.l0) == (1, result.l0)
    assert last.fvu == pytest.approx(result.fvu, rel=1e-12)
    plain = measured(made(WIRINGS[kind]), rows())
    assert result.fvu == pytest.approx(plain.fvu, rel=1e-5)
    assert not plain.of_prefix


def test_of_prefixes_drawn_for_each_batch_fixed_ones_are_measured():
    found = measured(made(WIRINGS["transcoder"]), rows(), prefixes=Prefixes(draws=3)).of_prefix
    assert [prefix.share for prefix in found] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("batch", [1, N])
def test_the_size_of_the_batches_changes_nothing(kind, batch):
    one, other = (
        measured(made(WIRINGS[kind]), rows(), size, Prefixes(SHARES)) for size in (7, batch)
    )
    assert (one.l0, one.dead, one.density) == (other.l0, other.dead, other.density)
    assert other.fvu == pytest.approx(one.fvu, rel=1e-5)
    for a, b in zip(one.of_prefix, other.of_prefix, strict=True):
        assert (a.l0, a.fvu) == pytest.approx((b.l0, b.fvu), rel=1e-5)
    for name, site in one.sites.items():
        assert other.sites[name].fvu == pytest.approx(site.fvu, rel=1e-5)


def test_an_identity_transcoder_leaves_nothing_unexplained():
    other = Site("other", A.width)
    dictionary = Dictionary(Wiring((Bank(8, (A,), (other,)),)), RELU)
    eye = torch.eye(4)
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        dictionary.W_dec.copy_(torch.cat([eye, -eye]))
    x = rows()
    measure = Measure(dictionary)
    measure.add(x | {"other": x[A.hook_name]})
    assert measure.result("it", {"other": 0.0}).fvu == 0


@pytest.mark.parametrize("kind", WIRINGS)
def test_the_mean_explains_nothing_at_any_site(kind):
    """To the last digits of float64: whole numbers, far from zero, with a whole mean."""
    half = {name: x[: N // 2].round() for name, x in rows().items()}
    x = {name: torch.cat([part, 300 - part]) for name, part in half.items()}
    dictionary = Dictionary(WIRINGS[kind], RELU)
    with torch.no_grad():
        dictionary.b_dec.fill_(150)
    result = measured(dictionary, x)
    for fvu in (result.fvu, *(site.fvu for site in result.sites.values())):
        assert fvu == pytest.approx(1, abs=1e-14)


def test_a_target_of_other_rows_scores_far_worse():
    x, dictionary = rows(), made(WIRINGS["skip"])
    with torch.no_grad():
        target = {C.hook_name: dictionary(x)[C.hook_name]}
    shuffled = {C.hook_name: target[C.hook_name].flip(0)}
    assert measured(dictionary, x | target).fvu < 1e-9
    assert measured(dictionary, x | shuffled).fvu > 0.5


def test_a_target_that_is_missing_is_named():
    with pytest.raises(BadInput, match=f"writes {C.hook_name}, which is missing"):
        Measure(made(WIRINGS["transcoder"])).add(rows()[A.hook_name])


def test_a_site_that_is_constant_is_named():
    x = rows()
    x[B.hook_name][:] = 3
    with pytest.raises(BadInput, match=f"{B.hook_name} is constant"):
        measured(made(WIRINGS["crosscoder"]), x)


def test_relative_norms_tell_the_latents_of_one_site_from_those_of_both():
    """The second site is a hundred times as large, and so are its decoder rows."""
    wiring = Wiring((Bank(5, (A, B), (A, B)),))
    dictionary = Dictionary(wiring, RELU)
    with torch.no_grad():
        for latent, (a, b) in enumerate([(1, 0), (0, 100), (1, 100), (1, 300), (0, 0)]):
            dictionary.W_dec[latent, 0], dictionary.W_dec[latent, A.width] = a, b
    x = torch.randn(N, A.width, generator=torch.Generator().manual_seed(0))
    measure = Measure(dictionary)
    measure.add({A.hook_name: x, B.hook_name: 100 * torch.cat([x, torch.zeros(N, 2)], dim=1)})
    counts = measure.result("it", CODEC).relative_norms
    assert counts == (1, 0, 1, 0, 0, 1, 0, 0, 0, 1)


def test_relative_norms_are_of_two_sites_only():
    assert not measured(made(WIRINGS["crosscoder"]), rows()).relative_norms
    assert sum(measured(made(WIRINGS["dedicated"]), rows()).relative_norms) == 12


@pytest.mark.parametrize("kind", [*WIRINGS, "signed"])
def test_lifetimes_are_those_of_the_code(kind):
    select = Signed() if kind == "signed" else None
    dictionary, x = made(WIRINGS.get(kind, WIRINGS["transcoder"]), select), rows()
    f = dictionary.encode(x)
    on = (f != 0).any(dim=0) if kind == "decoupled" else f != 0
    lives = Lifetimes(dictionary)
    for start in range(0, N, 4):
        lives.add({name: part[start : start + 4] for name, part in x.items()})
    expected = torch.where(on.any(dim=0), on.int().argmax(dim=0), N)
    assert torch.equal(lives.first, expected)


@pytest.fixture
def store(make_store):
    """A store of the three sites, each twice as wide a range as the one before."""
    return make_store("several", rows=400, sites={site.hook_name: site.width for site in SITES})


def saved(path, dictionary, **metadata):
    path.mkdir()
    save_dictionary(dictionary, path, metadata)
    return path


def test_held_out_rows_of_all_its_sites_are_read(store, tmp_path):
    store, values = store
    dictionary = made(WIRINGS["cross-layer"])
    run = {"prefixes": [0.25, 1.0]}
    path = saved(tmp_path / "clt", dictionary, rkstore=run)
    [result] = evaluate([path], EvaluateSettings(store=str(store.root), batch_size=9))
    held_out = np.concatenate([np.arange(*store.rows_of_chunk(c)) for c in split_chunks(store)[1]])
    x = {name: torch.from_numpy(values[name][held_out]) for name in store.hook_names}
    found, y = double(dictionary(x)), double(x)
    error = sum(np.square(found[name] - y[name]).sum() for name in found)
    assert result.fvu == pytest.approx(error / sum(variation(y[name]) for name in found))
    assert (result.hook_name, result.hook_name_out) == (
        f"{A.hook_name},{B.hook_name}",
        f"{B.hook_name},{C.hook_name}",
    )
    assert [prefix.share for prefix in result.of_prefix] == [0.25, 1]


def test_each_set_of_sites_is_read_once(store, tmp_path, monkeypatch):
    store, _ = store
    alone = Wiring((Bank(6, (A,), (A,)),), centred=True)
    turned = Wiring((Bank(6, SITES[::-1], SITES[::-1]),))
    chosen = {"one": WIRINGS["crosscoder"], "two": turned, "three": WIRINGS["transcoder"]}
    paths = [saved(tmp_path / name, made(wiring)) for name, wiring in chosen.items()]
    paths.append(saved(tmp_path / "sae", made(alone), hook_name=A.hook_name))
    read, reading = [], evaluation.read_rows

    def counted(store, sites, *others):
        read.append(tuple(sites))
        return reading(store, sites, *others)

    monkeypatch.setattr(evaluation, "read_rows", counted)
    settings = EvaluateSettings(store=str(store.root))
    together = evaluate(paths, settings)
    names = tuple(store.hook_names)
    assert sorted(read) == sorted([names, (names[0], names[2]), (names[0],)])
    assert together == [evaluate([path], settings)[0] for path in paths]


@pytest.fixture
def long_rows(store, make_store):
    """Call it with some of the held-out rows of each site: a store in which they are long."""
    plain, values = store
    held_out = np.concatenate([np.arange(*plain.rows_of_chunk(c)) for c in split_chunks(plain)[1]])

    def make(chosen):
        changed = {name: values[name].copy() for name in chosen}
        for name, which in chosen.items():
            changed[name][held_out[which]] = 1e4
        sites = {site.hook_name: site.width for site in SITES}
        return str(make_store("long", rows=400, sites=sites, values=changed)[0].root)

    return make


def test_a_row_that_is_left_out_at_one_site_is_left_out_at_all(long_rows, tmp_path):
    path = saved(tmp_path / "one", made(WIRINGS["transcoder"]))
    store = long_rows({C.hook_name: slice(1)})
    whole, some = (
        evaluate([path], EvaluateSettings(store=store, max_norm=most))[0] for most in (None, 100.0)
    )
    assert (some.left_out, some.rows) == (1, whole.rows - 1)


def test_sites_that_leave_each_other_no_row_are_refused(long_rows, tmp_path):
    path = saved(tmp_path / "one", made(WIRINGS["transcoder"]))
    halves = {A.hook_name: slice(None, None, 2), C.hook_name: slice(1, None, 2)}
    with pytest.raises(BadInput, match=r"every held-out row of .* is left out"):
        evaluate([path], EvaluateSettings(store=long_rows(halves), max_norm=100.0))


def test_the_results_of_an_autoencoder_have_the_keys_that_they_had(store, tmp_path):
    store, _ = store
    path = saved(
        tmp_path / "sae", made(Wiring((Bank(6, (A,), (A,)),), True)), hook_name=A.hook_name
    )
    [result] = evaluate([path], EvaluateSettings(store=str(store.root)))
    had = ["name", "hook_name", "rows", "d_in", "d_sae", "l0", "dead", "dense", "fvu", "mse"]
    had += ["cosine", "norm_ratio", "codec_fvu", "density", "zero_rows", "left_out", "path"]
    had += ["notes", "explained_variance", "dead_share"]
    assert [key for key in result.as_dict() if key in had] == had


def paired(make_store, tmp_path):
    """Two stores of the same tokens, and a dictionary of a site of each."""
    sites = {"blocks.0.in": 4}
    stores = [make_store(name, rows=400, sites=sites)[0] for name in ("base", "chat")]
    both = tuple(Site(f"{name}:blocks.0.in", 4) for name in ("base", "chat"))
    wiring = Wiring((Bank(6, both, both),))
    dictionary = Dictionary(wiring, select_named("topk", {"k": 2}))
    return stores, saved(tmp_path / "dfc", dictionary)


def test_sites_of_two_stores_are_read_together(make_store, tmp_path):
    (base, chat), path = paired(make_store, tmp_path)
    settings = EvaluateSettings(store=str(base.root), paired_with=str(chat.root))
    [result] = evaluate([path], settings)
    assert list(result.sites) == ["base:blocks.0.in", "chat:blocks.0.in"]


def test_one_store_is_not_enough_for_sites_of_two(make_store, tmp_path):
    (base, _), path = paired(make_store, tmp_path)
    with pytest.raises(BadInput, match=r"'base:blocks\.0\.in' is not in .*paired.with"):
        evaluate([path], EvaluateSettings(store=str(base.root)))


def test_two_stores_are_too_many_for_a_site_of_one(make_store, tmp_path):
    (base, chat), _ = paired(make_store, tmp_path)
    path = saved(tmp_path / "one", Dictionary(Wiring((Bank(6, (A,), (A,)),)), RELU))
    with pytest.raises(BadInput, match=r"'blocks\.0\.in' is not in .*leave out paired.with"):
        evaluate([path], EvaluateSettings(store=str(base.root), paired_with=str(chat.root)))


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (
            Site("blocks.7.out", 4),
            r"'blocks\.7\.out' is not in the store .*blocks\.0\.in.*hook blocks",
        ),
        (Site(B.hook_name, 9), r"for activations 9 wide, blocks\.1\.in in .* is 6 wide"),
    ],
)
def test_a_site_that_the_store_does_not_have_so_is_refused(store, tmp_path, site, said):
    path = saved(tmp_path / "one", Dictionary(Wiring((Bank(6, (A,), (site,)),)), RELU))
    settings = EvaluateSettings(store=str(store[0].root))
    with pytest.raises(BadInput, match=said):
        evaluate([path], settings)


def test_an_autoencoder_that_does_not_say_what_it_is_for_is_refused(store, tmp_path):
    path = saved(tmp_path / "sae", made(Wiring((Bank(6, (A,), (A,)),), centred=True)))
    with pytest.raises(BadInput, match="does not say what it is for: write the hook_name"):
        evaluate([path], EvaluateSettings(store=str(store[0].root)))


@pytest.mark.parametrize(
    "run",
    [
        {"prefixes": "0.5,1"},
        {"prefixes": [0.5, True]},
        {"prefixes": [0.5, 0.25]},
        {"prefixes": [0.5, 1], "prefix_order": "random"},
        {"prefix_draws": -1},
        {"prefixes": [0.5, 1], "prefix_draws": 2},
    ],
)
def test_prefixes_that_no_training_records_are_refused(store, tmp_path, run):
    path = saved(tmp_path / "one", made(WIRINGS["transcoder"]), rkstore=run)
    with pytest.raises(BadInput, match="prefixes"):
        evaluate([path], EvaluateSettings(store=str(store[0].root)))
