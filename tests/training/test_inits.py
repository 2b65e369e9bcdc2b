"""Inits: what each gives a dictionary to begin with, and what all of them share."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from rkstore.dictionaries import SELECTS, Dictionary, load_dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import mined_of
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import options_in
from rkstore.store.batches.plan import split_chunks
from rkstore.store.sites import Site
from rkstore.training.ignored import unused
from rkstore.training.inits import INITS, Start, initialise
from rkstore.training.inits.calibration import fire_at_rate, match_reconstruction
from rkstore.training.inits.centre import geometric_median
from rkstore.training.inits.rkcnn import RkCNN
from rkstore.training.inits.subspace import principal_subspace
from rkstore.training.reading import Reading
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"
D_IN, D_SAE, M = 12, 40, 3

ENCODE_THEIR_OWN_DIRECTION = [name for name, init in INITS.items() if init.centred]
SPARSE = ["rkcnn", "rkcnn-unscored", "sparse-random"]
TRANSPOSED = ["tied", "datapoint", "subspace", *SPARSE]

# What the sparse inits begin with where no row is blended in.
NO_ROWS = {"datapoint_share": 0.0}


@pytest.fixture
def data(make_store):
    store, _ = make_store(rows=400)
    return reading_of(store, 0.5)


@pytest.fixture
def begin(data):
    """Call it for a dictionary as that init makes it."""

    def make(init, d_sae=D_SAE, select="topk", **options):
        dictionary = make_dictionary(d_sae, select)
        initialise(dictionary, data, TrainSettings(init=init, k=5, rkcnn_m=M, **options))
        return dictionary.requires_grad_(False)

    return make


def reading_of(store, scale):
    return Reading(store, (Site(SITE, D_IN),), split_chunks(store)[0], {SITE: scale})


def make_dictionary(d_sae=D_SAE, select="topk"):
    return Dictionary.of_site(D_IN, d_sae, select_named(select, {"k": 5}), hook_name=SITE)


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


def mean_of(data):
    return torch.tensor(data.statistics(SITE).mean * data.scales[SITE], dtype=torch.float32)


# What all share.


def test_every_init_can_be_asked_for():
    assert options_in(TrainSettings)["init"].choices is INITS


@pytest.mark.parametrize("init", INITS)
def test_every_init_gives_unit_decoder_rows_and_depends_on_its_seed_alone(init, begin):
    one, same, other = (begin(init, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(one.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert torch.equal(one.W_dec, same.W_dec)
    assert torch.equal(one.W_enc, same.W_enc)
    assert not torch.equal(one.W_dec, other.W_dec)


@pytest.mark.parametrize("init", INITS)
def test_what_an_init_does_not_choose_is_the_same_base_in_all(init, begin):
    options = {"rkcnn_fraction": 0.25, "datapoint_share": 0.0, "subspace_dim": D_IN}
    mined = 10 if "rkcnn" in init or init == "sparse-random" else 0
    made, base = begin(init, **options), begin("tied")
    torch.testing.assert_close(made.W_dec[mined:], base.W_dec[mined:])


@pytest.mark.parametrize("init", ENCODE_THEIR_OWN_DIRECTION)
def test_a_latent_encodes_along_the_direction_it_decodes_to(init, begin):
    made = begin(init)
    torch.testing.assert_close(unit(made.W_enc.T), made.W_dec)


@pytest.mark.parametrize("init", TRANSPOSED)
def test_the_encoder_of_a_tied_init_is_the_transposed_decoder(init, begin):
    made = begin(init, init_scale="none")
    torch.testing.assert_close(made.W_enc, made.W_dec.T)


# Another value than the usual of each option that some inits alone read.
OTHER_VALUES = {
    "datapoint_share": 0.3,
    "subspace_dim": 4,
    "rkcnn_fraction": 0.25,
    "rkcnn_h": 30,
    "rkcnn_m": 4,
    "rkcnn_oversample": 1.5,
    "rkcnn_score": "variance_ratio",
}


def test_every_init_says_which_options_it_reads():
    read = {option for init in INITS.values() for option in options_in(init)}
    assert read == OTHER_VALUES.keys() | {"directions"}


@pytest.mark.parametrize("option", OTHER_VALUES)
@pytest.mark.parametrize("init", INITS)
def test_an_option_is_said_to_have_no_part_exactly_where_it_changes_nothing(init, option, data):
    made = []
    for given in ({}, {option: OTHER_VALUES[option]}):
        settings = TrainSettings(init=init, k=5, **({"rkcnn_m": M} | given))
        dictionary = make_dictionary()
        initialise(dictionary, data, settings)
        made.append(dictionary.W_dec.detach())
    assert torch.equal(*made) == (option in unused(settings, [option]))


@pytest.mark.parametrize("option", ["k", "l1"])
@pytest.mark.parametrize("name", sorted(SELECTS))
def test_an_option_of_another_code_is_said_to_have_no_part(name, option):
    said = unused(TrainSettings(dictionary=name), [option])
    assert (option not in said) == (option in options_in(SELECTS[name]))


def test_quantile_biases_give_k_a_part_in_every_code():
    assert unused(TrainSettings(dictionary="relu", init_bias="quantile"), ["k"]) == {}


def test_nothing_that_mining_depends_on_has_a_part_where_directions_are_given():
    settings = TrainSettings(init="rkcnn", directions="there")
    said = unused(settings, ["rkcnn_m", "rkcnn_score", "rkcnn_fraction", "directions"])
    assert list(said) == ["rkcnn_m", "rkcnn_score"]


# random


def test_the_encoder_of_random_is_xaviers_and_knows_nothing_of_the_decoder(begin):
    made = begin("random", d_sae=2000)
    bound = math.sqrt(6 / (D_IN + 2000))
    assert made.W_enc.abs().max() <= bound
    assert made.W_enc.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.cosine_similarity(made.W_enc.T, made.W_dec).mean().abs() < 0.02


# datapoint


def test_a_datapoint_latent_is_the_direction_of_a_centred_row_that_no_other_has(begin, data):
    made = begin("datapoint", datapoint_share=1.0)
    rows = unit(data.sample(400)[SITE] - mean_of(data))
    cosine = made.W_dec @ rows.T
    torch.testing.assert_close(cosine.max(dim=1).values, torch.ones(D_SAE))
    assert len(set(cosine.argmax(dim=1).tolist())) == D_SAE


def test_the_rest_of_a_datapoint_latent_is_random(begin):
    row, base = begin("datapoint", datapoint_share=1.0).W_dec, begin("tied").W_dec
    torch.testing.assert_close(begin("datapoint").W_dec, unit(0.8 * row + 0.2 * base))


def test_a_row_that_is_the_centre_itself_leaves_its_latent_random(make_store):
    store, _ = make_store("ones", rows=400, values={SITE: np.ones((400, D_IN), np.float32)})
    made = make_dictionary()
    settings = TrainSettings(init="datapoint", datapoint_share=1.0)
    initialise(made, reading_of(store, 1.0), settings)
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_fewer_rows_than_datapoint_latents_are_refused(begin):
    with pytest.raises(BadInput, match=r"a row for each of 500 latents and there are 368"):
        begin("datapoint", d_sae=500)


def test_more_than_all_of_a_row_is_refused(begin):
    with pytest.raises(BadInput, match=r"datapoint_share is 1.5: it must be from 0 to 1"):
        begin("datapoint", datapoint_share=1.5)


def test_drawn_rows_are_different_rows_of_the_training_chunks(data):
    drawn = data.draw(100, torch.Generator().manual_seed(0))[SITE] / data.scales[SITE]
    rows = np.concatenate([data.store.chunk(SITE, chunk) for chunk in data.chunks])
    places = [int(np.abs(rows - row.numpy()).sum(axis=1).argmin()) for row in drawn]
    assert np.array_equal(rows[places], drawn.numpy())
    assert len(set(places)) == 100


def test_all_rows_are_drawn_where_more_are_asked_for(data):
    assert len(data.draw(10_000, torch.Generator())[SITE]) == 368


# subspace


def test_subspace_latents_lie_in_the_top_principal_subspace(begin, data):
    made = begin("subspace", subspace_dim=4)
    x = data.sample(400)[SITE].double().numpy()
    _, _, directions = np.linalg.svd(x - x.mean(axis=0))
    outside = torch.tensor(directions[4:], dtype=torch.float32)
    torch.testing.assert_close(made.W_dec @ outside.T, torch.zeros(D_SAE, 8), atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(made.W_dec, tol=1e-3) == 4


def test_a_subspace_holds_99_percent_of_the_variance_by_default(data):
    x = data.sample(400)[SITE].double()
    variances = torch.linalg.svdvals(x - x.mean(dim=0)).square()
    shares = variances.cumsum(0) / variances.sum()
    dim = principal_subspace(x.float()).shape[1]
    assert shares[dim - 2] < 0.99 <= shares[dim - 1]


def test_a_subspace_larger_than_the_space_is_refused(begin):
    with pytest.raises(BadInput, match="subspace_dim is 13: it must be from 1 to the 12 dim"):
        begin("subspace", subspace_dim=13)


# rkcnn, as published, as it is here, and its controls


@pytest.mark.parametrize("init", [*SPARSE, "rkcnn-decoder"])
def test_mined_latents_lie_within_the_dimensions_of_their_subset(init, begin):
    made = begin(init, **NO_ROWS)
    assert (made.W_dec[:20].count_nonzero(dim=1) <= M).all()
    assert (made.W_dec[20:].count_nonzero(dim=1) == D_IN).all()


def test_rkcnn_decoder_leaves_the_encoder_as_random_has_it(begin):
    made, base = begin("rkcnn-decoder"), begin("random")
    assert torch.equal(made.W_enc, base.W_enc)
    assert torch.equal(made.W_dec[20:], base.W_dec[20:])
    assert not torch.equal(made.W_dec[:20], base.W_dec[:20])


def test_rkcnn_decoder_mines_no_more_latents_than_it_draws_subsets(begin):
    made, base = begin("rkcnn-decoder", rkcnn_h=7), begin("random")
    assert (made.W_dec[:7].count_nonzero(dim=1) <= M).all()
    assert torch.equal(made.W_dec[7:], base.W_dec[7:])


def test_where_all_subsets_are_kept_no_score_decides_which(begin):
    one, other = (
        begin("rkcnn-decoder", rkcnn_h=7, rkcnn_score=score).W_dec[:7]
        for score in ("kurtosis", "variance_ratio")
    )
    assert sorted(one.tolist()) == sorted(other.tolist())


def test_unscored_latents_are_principal_directions_of_their_subsets(begin, data):
    made = begin("rkcnn-unscored", **NO_ROWS)
    x = np.concatenate([data.store.chunk(SITE, chunk) for chunk in data.chunks])
    covariance = np.cov(x.T.astype(np.float64))
    for direction in made.W_dec[:20].double().numpy():
        inside = direction.nonzero()[0]
        block = covariance[np.ix_(inside, inside)]
        largest = np.linalg.eigvalsh(block)[-1]
        assert direction @ covariance @ direction == pytest.approx(largest, rel=1e-3)


def test_a_score_changes_what_rkcnn_mines_and_not_what_its_control_does(begin):
    def mined(init, score):
        return sorted(begin(init, rkcnn_score=score, **NO_ROWS).W_dec[:20].tolist())

    assert mined("rkcnn", "kurtosis") != mined("rkcnn", "variance_ratio")
    assert mined("rkcnn-unscored", "kurtosis") == mined("rkcnn-unscored", "variance_ratio")


def test_sparse_random_latents_are_random_where_unscored_ones_are_not_zero(begin):
    unscored, control = (
        begin(init, **NO_ROWS).W_dec[:20] for init in ("rkcnn-unscored", "sparse-random")
    )
    assert torch.equal(unscored != 0, control != 0)
    assert (unscored * control).sum(dim=1).abs().mean() < 0.8


@pytest.mark.parametrize("init", SPARSE)
def test_half_of_a_latent_is_the_row_that_datapoint_gives_it(init, begin):
    made, directions = begin(init).W_dec, begin(init, datapoint_share=0.0).W_dec
    rows = begin("datapoint", datapoint_share=1.0).W_dec
    torch.testing.assert_close(made, unit(rows + directions))


def test_directions_are_mined_from_chunks_spread_over_the_store(data, monkeypatch):
    read = []
    chunk = data.store.chunk
    monkeypatch.setattr(
        data.store, "chunk", lambda name, number: read.append(number) or chunk(name, number)
    )
    monkeypatch.setattr("rkstore.rkcnn.mine.MINED_ROWS", 3 * data.store.manifest.chunk_rows)
    bank, weights = make_dictionary().banks[0]
    start = Start(bank, weights, mean_of(data), mean_of(data), data, seed=0)
    RkCNN(rkcnn_m=M).mine(start, drawn=10, kept=5)
    assert read == data.chunks[:21:7]


@pytest.mark.parametrize("init", [*SPARSE, "rkcnn-decoder"])
@pytest.mark.parametrize("fraction", [0.001, 1.5])
def test_a_fraction_that_is_none_or_more_than_all_latents_is_refused(init, fraction, begin):
    with pytest.raises(BadInput, match=f"rkcnn_fraction {fraction} of 40 latents"):
        begin(init, rkcnn_fraction=fraction)


def test_too_few_distinct_subsets_are_refused_with_the_name_of_the_init(begin):
    with pytest.raises(BadInput, match=r"rkcnn-unscored mines r=500 .*220 distinct subsets"):
        begin("rkcnn-unscored", d_sae=1000)


# --center


@pytest.mark.parametrize("init", INITS)
def test_an_init_begins_at_the_mean_unless_its_encoder_is_random(init, begin, data):
    expected = torch.zeros(D_IN) if init in ("random", "rkcnn-decoder") else mean_of(data)
    torch.testing.assert_close(begin(init).b_dec, expected)


@pytest.mark.parametrize("init", ["random", "tied", "subspace"])
def test_every_init_can_begin_at_any_centre(init, begin, data):
    made = {name: begin(init, center=name) for name in ("mean", "geometric-median", "none")}
    torch.testing.assert_close(made["mean"].b_dec, mean_of(data))
    torch.testing.assert_close(
        made["geometric-median"].b_dec, geometric_median(data.sample()[SITE])
    )
    assert not made["none"].b_dec.any()
    for other in made.values():
        assert torch.equal(other.W_dec, made["mean"].W_dec)


def test_the_geometric_median_has_the_smallest_sum_of_distances(data):
    x = data.sample()[SITE].double().numpy()
    found = minimize(lambda m: np.linalg.norm(x - m, axis=1).sum(), x.mean(axis=0), tol=1e-9)
    expected = torch.tensor(found.x, dtype=torch.float32)
    torch.testing.assert_close(geometric_median(data.sample()[SITE]), expected, atol=1e-3, rtol=0)


def test_one_huge_row_moves_the_mean_and_not_the_geometric_median(data):
    x = data.sample()[SITE]
    with_outlier = torch.cat([x, torch.full((1, D_IN), 1e5)])
    assert (with_outlier.mean(dim=0) - x.mean(dim=0)).norm() > 100
    assert (geometric_median(with_outlier) - geometric_median(x)).norm() < 0.1


def test_the_geometric_median_of_rows_that_are_the_same_is_that_row():
    x = torch.full((5, 3), 2.0)
    torch.testing.assert_close(geometric_median(x), torch.full((3,), 2.0))


# --init-bias and --init-scale


@pytest.mark.parametrize("init", ["random", "tied", "rkcnn"])
def test_quantile_biases_let_every_latent_fire_equally_often(init, begin, data):
    made, x = begin(init, init_bias="quantile"), data.sample()[SITE]
    fired = ((x - made.b_dec) @ made.W_enc + made.b_enc > 1e-6).sum(dim=0)
    expected = round(len(x) * 5 / D_SAE)
    assert (fired - expected).abs().max() <= 1


def test_biases_change_no_direction(begin):
    plain, biased = begin("tied"), begin("tied", init_bias="quantile")
    assert torch.equal(plain.W_enc, biased.W_enc)
    assert torch.equal(plain.W_dec, biased.W_dec)


def test_a_rate_of_all_or_nothing_still_gives_biases(begin, data):
    x = data.sample()[SITE]
    for rate, least, most in ((0.0, 1, 2), (1.0, len(x) - 1, len(x))):
        made = begin("tied")
        fire_at_rate(made, {SITE: x}, rate)
        fired = ((x - made.b_dec) @ made.W_enc + made.b_enc >= 0).sum(dim=0)
        assert ((fired >= least) & (fired <= most)).all()


@pytest.mark.parametrize("select", ["relu", "topk", "batchtopk"])
@pytest.mark.parametrize("init", INITS)
def test_a_scaled_init_reconstructs_rows_as_long_as_they_are(init, select, begin, data):
    made, x = begin(init, select=select, init_scale="reconstruction"), data.sample(1024)[SITE]
    lengths = (made(x) - made.b_dec).norm(dim=1).mean()
    assert lengths.item() == pytest.approx((x - made.b_dec).norm(dim=1).mean().item(), rel=1e-4)


@pytest.mark.parametrize("init", INITS)
def test_an_init_keeps_its_own_scale_unless_its_latents_are_rows_of_the_data(init, begin):
    usual = "reconstruction" if init in ("datapoint", *SPARSE) else "none"
    assert torch.equal(begin(init).W_enc, begin(init, init_scale=usual).W_enc)


def test_scaling_changes_no_direction_and_not_how_often_a_latent_fires(begin):
    plain = begin("rkcnn", init_bias="quantile", init_scale="none")
    scaled = begin("rkcnn", init_bias="quantile", init_scale="reconstruction")
    factor = scaled.W_enc.norm() / plain.W_enc.norm()
    torch.testing.assert_close(scaled.W_enc, factor * plain.W_enc)
    torch.testing.assert_close(scaled.b_enc, factor * plain.b_enc)
    assert torch.equal(scaled.W_dec, plain.W_dec)


def test_scaling_teaches_the_threshold_of_batchtopk_nothing(begin):
    made = begin("tied", select="batchtopk", init_scale="reconstruction")
    assert made.select.batches == 0


def test_a_dictionary_that_reconstructs_nothing_keeps_its_scale(begin, data):
    made = begin("tied")
    made.b_enc.fill_(-1e6)
    before = made.W_enc.clone()
    match_reconstruction(made, data.sample())
    assert torch.equal(made.W_enc, before)


# What a checkpoint records.


@pytest.mark.parametrize(
    ("init", "mined"),
    [
        ("rkcnn", [[0, 20]]),
        ("rkcnn-decoder", [[0, 15]]),
        ("rkcnn-unscored", [[0, 20]]),
        ("sparse-random", None),
        ("datapoint", None),
    ],
)
def test_a_checkpoint_records_which_latents_were_mined(make_store, tmp_path, init, mined):
    make_store(rows=400, sites={SITE: D_IN})
    options = {"init": init, "rkcnn_m": M, "rkcnn_h": 15, "k": 5, "steps": 2, "batch_size": 8}
    settings = TrainSettings(
        store=str(tmp_path / "store"), out=str(tmp_path / "out"), d_sae=D_SAE, **options
    )
    path = train(settings)
    assert load_dictionary(path)[1]["rkstore"].get("mined") == mined
    [found] = evaluate([path], EvaluateSettings(store=settings.store))
    assert (found.dead_mined is None) == (mined is None)
    assert (found.dead_mined or 0) <= found.dead


@pytest.mark.parametrize("mined", [[[0, 41]], [[3, 3]], [[0, 2], [1, 3]], [0, 1], 7, [["a", 2]]])
def test_mined_latents_that_cannot_be_are_refused(mined):
    with pytest.raises(BadInput, match="not those of a training"):
        mined_of("x", {"rkstore": {"mined": mined}}, D_SAE)
