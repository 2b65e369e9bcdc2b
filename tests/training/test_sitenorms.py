"""Site norms: what each makes of a site, and that it is folded back exactly."""

import dataclasses

import numpy as np
import pytest
import torch

from rkstore.dictionaries import SELECTS, Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.dictionaries.affine import Affine, folded
from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Moments
from rkstore.settings import replace
from rkstore.store.sites import Site
from rkstore.store.statistics import Statistics
from rkstore.training.checkpoint import STATE
from rkstore.training.ignored import unused
from rkstore.training.inits import INITS
from rkstore.training.inits.mining import Mined
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.sitenorms import SITE_NORMS, OfSite, Standardise, Whiten
from rkstore.training.train import train

CENTRING = [name for name, norm in SITE_NORMS.items() if norm.centres]
every_norm = pytest.mark.parametrize("norm", SITE_NORMS)
every_centring = pytest.mark.parametrize("norm", CENTRING)

A, B, C = Site("a", 6), Site("b", 8), Site("c", 4)
WIRINGS = {
    "autoencoder": Wiring((Bank(24, (A,), (A,)),), centred=True),
    "transcoder": Wiring((Bank(24, (A,), (B,)),)),
    "transcoder with a skip": Wiring((Bank(24, (A,), (B,)),), skip=True),
    "per-layer with skips": Wiring(
        (Bank(12, (A,), (B,)), Bank(12, (B,), (C,))), together=False, skip=True
    ),
    "cross-layer": Wiring((Bank(12, (A,), (A, B, C)), Bank(8, (B,), (B, C)), Bank(4, (C,), (C,)))),
    "crosscoder": Wiring((Bank(24, (A, B), (A, B)),)),
    "dedicated": Wiring((Bank(6, (A,), (A,)), Bank(6, (B,), (B,)), Bank(12, (A, B), (A, B)))),
}


def make_rows(n=64):
    """Correlated dimensions of different sizes, far from zero."""
    generator = torch.Generator().manual_seed(1)
    return {
        site.hook_name: torch.randn(n, site.width, generator=generator)
        @ torch.randn(site.width, site.width, generator=generator)
        + 3
        for site in (A, B, C)
    }


def normal_of(norm, x, **options):
    x = x.numpy()
    return SITE_NORMS[norm](**options).of(
        OfSite(Statistics.of(x), lambda: Moments.of(x, comoment=True))
    )


def normalised(normal, x):
    return (normal.map(x) if normal.map else x) * normal.scale


def make_dictionary(wiring, select):
    options = {"k": 4, "threshold": 0.7}
    dictionary = Dictionary(wiring, select_named(select, options))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in dictionary.named_parameters():
        if "threshold" not in name:
            parameter.data.normal_(generator=generator)
    for pool in dictionary.pools:
        if select == "batchtopk":
            pool.get_buffer("threshold").fill_(1.3)
    return dictionary.eval()


def check_equal(found, wanted):
    """Up to the rounding of float32 in sums of large terms."""
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("wiring", WIRINGS)
@every_norm
def test_a_folded_dictionary_is_the_trained_one(wiring, norm, select, tmp_path):
    """The same code but for the scale, and the same reconstructions, from disk, by every norm."""
    rows = make_rows()
    normals = {name: normal_of(norm, x) for name, x in rows.items()}
    z = {name: normalised(normals[name], x) for name, x in rows.items()}
    scales = {name: normal.scale for name, normal in normals.items()}
    maps = {name: normal.map for name, normal in normals.items() if normal.map}
    for code_norm in NORMS if len(WIRINGS[wiring].banks) == 1 else NORMS.keys() - {"decoupled"}:
        trained = make_dictionary(dataclasses.replace(WIRINGS[wiring], norm=code_norm), select)
        save_dictionary(folded(trained.rescaled(scales), maps), tmp_path, {"hook_name": "a"})
        f, decoded = load_dictionary(tmp_path)[0].reconstruct(rows)
        wanted, targets = trained.reconstruct(z)
        check_equal(f * scales["a"], wanted)
        for name, y in decoded.items():
            check_equal(normalised(normals[name], y), targets[name])


@every_centring
def test_rows_get_mean_zero_and_mean_square_of_their_width(norm):
    for x in make_rows(500).values():
        z = normalised(
            normal_of(norm, x, norm_floor=1e-9) if norm != "centre" else normal_of(norm, x), x
        )
        torch.testing.assert_close(z.mean(dim=0), torch.zeros(z.shape[1]), atol=1e-4, rtol=0)
        assert z.square().sum(dim=1).mean().item() == pytest.approx(z.shape[1], rel=1e-3)


def test_standardised_dimensions_have_deviation_one():
    x = make_rows(500)["b"]
    z = normalised(normal_of("standardise", x), x)
    torch.testing.assert_close(z, (x - x.mean(dim=0)) / x.std(dim=0, correction=0))


def test_whitened_rows_have_the_identity_for_covariance_and_stay_near_the_rows():
    x = make_rows(500)["b"]
    normal = normal_of("whiten", x, norm_floor=1e-9)
    torch.testing.assert_close(
        torch.cov(normal.map(x).T, correction=0), torch.eye(8), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(normal.map.factor, normal.map.factor.T)


@pytest.mark.parametrize("norm", [Standardise, Whiten])
def test_what_hardly_varies_is_not_scaled_up_to_a_feature(norm):
    x = make_rows(500)["b"]
    x[:, 3] = x[0, 3] + 1e-6 * x[:, 4]
    x[:, 5] = 2.0
    z = normalised(normal_of(norm.name, x), x)
    smallest = torch.linalg.eigvalsh(torch.cov(z.T))[:2]
    assert z.isfinite().all()
    assert smallest.max() < 1e-5
    assert normal_of(norm.name, x).map.factor.max() <= (1e-3 * x.var(dim=0).mean()) ** -0.5 * 1.01


def test_directions_go_where_a_step_along_them_goes():
    x = make_rows(500)["b"]
    map = normal_of("whiten", x).map
    d = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    moved = map(x[:5] + d) - map(x[:5])
    torch.testing.assert_close(
        map.directions(d), torch.nn.functional.normalize(moved, dim=1), atol=1e-5, rtol=1e-4
    )


# In a run.

SITE = "blocks.0.mlp.hook_post"


@pytest.fixture
def settings(make_store, tmp_path):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((400, 5)), 0) @ rng.standard_normal((5, 12)) + 3
    x = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    make_store(rows=400, sites={SITE: 12}, values={SITE: x})
    return TrainSettings(
        store=str(tmp_path / "store"),
        out=str(tmp_path / "out"),
        d_sae=24,
        k=4,
        rkcnn_m=3,
        steps=30,
        batch_size=32,
        warmup=5,
    )


@every_norm
def test_a_run_trains_on_normalised_rows_and_saves_for_raw_ones(settings, norm):
    settings = replace(settings, norm=norm)
    found, metadata = load_dictionary(train(settings))
    assert metadata["rkstore"]["norm"] == norm
    run = prepare(settings)
    x = torch.from_numpy(run.store.read(SITE))
    begun = run.reading.in_store_units(run.dictionary)
    assert (found(x) - x).square().sum() < 0.8 * (begun(x) - x).square().sum()
    torch.testing.assert_close(begun.b_dec, x.mean(dim=0), atol=0.05, rtol=0.05)


@every_norm
@pytest.mark.parametrize("code_norm", ["none", "sae"])
def test_a_saved_dictionary_can_be_taken_back_to_normalised_rows(settings, norm, code_norm):
    settings = replace(settings, norm=norm, code_norm=code_norm)
    run = prepare(settings)
    found, _ = load_dictionary(train(settings))
    again = run.reading.in_training_units(found)
    torch.testing.assert_close(again.W_dec.norm(dim=1), torch.ones(24), atol=1e-4, rtol=0)
    if code_norm == "sae":
        torch.testing.assert_close(again.decoder_norms(), found.decoder_norms())
    batch = next(run.reading.batches(64, seed=0))
    z, x = run.reading.rows(batch, "cpu")[SITE], torch.from_numpy(batch.x[SITE])
    check_equal(again.encode(z), found.encode(x) * run.reading.scales[SITE])


def test_whitening_sees_the_training_rows_alone(settings):
    run = prepare(replace(settings, norm="whiten", norm_floor=1e-9))
    x = np.concatenate([run.store.chunk(SITE, chunk) for chunk in run.reading.chunks])
    assert len(x) < 400
    z = run.reading.maps[SITE](torch.from_numpy(x))
    torch.testing.assert_close(torch.cov(z.T, correction=0), torch.eye(12), atol=2e-3, rtol=0)


@every_centring
@pytest.mark.parametrize(
    "init", ["rkcnn", "rkcnn-decoder", "sparse-random", "datapoint", "subspace"]
)
def test_mined_directions_are_mapped_as_the_rows_are(settings, norm, init):
    settings = replace(settings, init=init, norm=norm, datapoint_share=0.0, rkcnn_h=20)
    raw = prepare(replace(settings, norm="d_in")).dictionary.W_dec
    run = prepare(settings)
    if issubclass(INITS[init], Mined):
        expected = run.reading.maps[SITE].directions(raw.detach()[:12])
        torch.testing.assert_close(run.dictionary.W_dec[:12], expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(run.dictionary.W_dec.norm(dim=1), torch.ones(24))


def test_a_stopped_run_under_whitening_goes_on_to_the_same_bits(settings, tmp_path):
    whitened = replace(settings, norm="whiten", checkpoint_every=10)
    through = train(whitened)
    other = replace(whitened, out=str(tmp_path / "other"))
    last = train(replace(other, name=through.name.rpartition("_")[0]))
    assert (last / STATE).read_bytes() == (through / STATE).read_bytes()


@every_centring
def test_a_site_that_never_changes_cannot_be_centred(make_store, settings, tmp_path, norm):
    make_store("same", rows=400, sites={SITE: 12}, values={SITE: np.full((400, 12), 2, np.float32)})
    with pytest.raises(BadInput, match="the same in every row"):
        prepare(replace(settings, store=str(tmp_path / "same"), norm=norm))


def test_a_floor_without_a_norm_that_has_one_is_said(settings):
    assert unused(settings, ["norm_floor"]) == {
        "norm_floor": "--norm-floor has no effect with --norm d_in"
    }


def test_the_map_of_a_device_is_made_once():
    map = Affine(torch.ones(2), torch.full((2,), 2.0), torch.full((2,), 0.5))
    assert torch.equal(map(torch.ones(1, 2)), torch.zeros(1, 2))
    assert len(map._held) == 1
