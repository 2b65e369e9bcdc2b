"""Planted features: the statistics that were asked for are those that are drawn."""

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.planted.directions import draw_directions, overlap_of
from rkstore.planted.features import BLOCK_ROWS, plant_features
from rkstore.planted.forest import forest, zipf
from rkstore.planted.settings import PlantSettings


def planted(**options):
    return plant_features(PlantSettings(**options))


ROWS = 60_000


@pytest.fixture(scope="module")
def benchmark():
    """The default features, and which fire in many rows."""
    found = planted(features=256, d_in=8)
    return found, found.codes(0, ROWS) > 0


def test_the_trees_of_synthsaebench_have_its_mean_l0():
    trees = forest(zipf(16_384, 0.4, 5e-4, 0.5), 128, 4, 3)
    assert trees.probability.sum() == pytest.approx(34, abs=1)
    assert trees.probability[:4096].sum() == pytest.approx(25, abs=0.5)


def test_zipf_falls_from_p_max_to_p_min_by_the_power_of_the_rank():
    p = zipf(1000, 0.4, 0.001, 0.5)
    assert (p[0], p[-1]) == pytest.approx((0.4, 0.001))
    power = np.arange(1, 1001) ** -0.5
    assert np.corrcoef(p, power)[0, 1] == pytest.approx(1)


def test_features_fire_as_often_as_the_truth_says(benchmark):
    found, fires = benchmark
    p = found.forest.probability
    error = (fires.mean(axis=0) - p) / np.sqrt(p * (1 - p) / ROWS)
    assert np.abs(error).max() < 4.5
    assert 0.8 < error.std() < 1.2


def test_a_child_fires_only_if_its_parent_does(benchmark):
    found, fires = benchmark
    parent = found.forest.parent
    children = np.flatnonzero(parent >= 0)
    assert len(children) == 2 * (4 + 16 + 64)
    assert fires[:, children].any()
    assert not (fires[:, children] & ~fires[:, parent[children]]).any()


def test_of_siblings_at_most_one_fires(benchmark):
    found, fires = benchmark
    parent = found.forest.parent
    for one in np.unique(parent[parent >= 0]):
        assert fires[:, parent == one].sum(axis=1).max() == 1


def test_a_child_is_scaled_by_its_parent():
    found = planted(features=8, d_in=4, roots=1, depth=1, p_max=0.9, p_min=0.5, spread=0.4)
    code, parent = found.codes(0, 20_000), found.forest.parent
    both = code[:, 1] > 0
    assert parent[1] == 0
    assert np.corrcoef(code[both, 0], code[both, 1])[0, 1] > 0.2
    alone = (code[:, 6] > 0) & (code[:, 7] > 0)
    assert abs(np.corrcoef(code[alone, 6], code[alone, 7])[0, 1]) < 0.05


def test_free_features_correlate_by_their_loadings():
    found = planted(
        features=6, d_in=4, roots=0, rank=2, correlation=0.5, p_max=0.5, p_min=0.5, seed=3
    )
    fires = (found.codes(0, ROWS) > 0).astype(float)
    # Of two normals cut at their medians, the signs correlate by 2/π·arcsin(ρ).
    asked = 2 / np.pi * np.arcsin(found.loadings @ found.loadings.T)
    drawn = np.corrcoef(fires.T)
    apart = ~np.eye(6, dtype=bool)
    assert np.abs(asked[apart]).max() > 0.2
    assert np.abs(drawn - asked)[apart].max() < 0.02


def test_without_correlation_features_fire_independently():
    found = planted(easy=True, d_in=8)
    correlation = np.corrcoef((found.codes(0, ROWS) > 0).T.astype(float))
    assert np.abs(correlation - np.eye(96)).max() < 5 / np.sqrt(ROWS)


def test_magnitudes_have_the_mean_and_deviation_that_were_drawn():
    found = planted(easy=True, d_in=8)
    code, (mean, deviation) = found.codes(0, ROWS), found.magnitudes
    assert mean[[0, -1]].tolist() == [5.0, 4.0]
    for feature in np.flatnonzero(deviation < 0.8):  # hardly any is negative before its sign is
        fired = code[code[:, feature] > 0, feature]
        assert fired.mean() == pytest.approx(mean[feature], abs=0.12)
        assert fired.std() == pytest.approx(deviation[feature], rel=0.15, abs=0.01)


@pytest.mark.parametrize("overlap", [0.25, 0.4, 0.7])
def test_directions_overlap_as_much_as_asked(overlap):
    drawn = draw_directions(301, 64, overlap, np.random.default_rng(0))
    assert overlap_of(drawn) == pytest.approx(overlap, abs=1e-4)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.ones(301))


def test_the_overlap_is_the_mean_of_the_largest_cosines():
    drawn = draw_directions(1500, 16, None, np.random.default_rng(0))
    cosines = np.abs(drawn @ drawn.T) - np.eye(1500)
    assert overlap_of(drawn) == pytest.approx(cosines.max(axis=1).mean())


def test_any_rows_are_the_same_rows_however_they_are_drawn():
    found = planted(features=64, d_in=8, noise=0.1)
    first, last = BLOCK_ROWS - 3, 3 * BLOCK_ROWS + 7
    [site] = found.directions
    whole = np.concatenate([x[site] for _, x in found.rows(0, last)])
    part = np.concatenate(
        [x[site] for _, x in planted(features=64, d_in=8, noise=0.1).rows(first, last)]
    )
    assert (part == whole[first:]).all()
    assert (found.codes(first, last) == found.codes(0, last)[first:]).all()
    assert found.codes(5, 5).shape == (0, 64)


def test_another_seed_makes_other_features_and_other_rows():
    one, two = planted(features=64, d_in=8), planted(features=64, d_in=8, seed=1)
    assert not np.allclose(next(iter(one.directions.values())), next(iter(two.directions.values())))
    assert (one.codes(0, 256) != two.codes(0, 256)).any()


def test_noise_has_the_deviation_asked_for_and_is_fresh_at_every_site():
    clean, noisy = (planted(features=32, d_in=8, kind="transcoder", noise=n) for n in (0.0, 0.3))
    pieces = [
        np.concatenate(
            [
                b[name] - a[name]
                for (_, a), (_, b) in zip(clean.rows(0, 4096), noisy.rows(0, 4096), strict=True)
            ]
        )
        for name in clean.directions
    ]
    assert [piece.std() for piece in pieces] == pytest.approx([0.3, 0.3], rel=0.02)
    assert abs(np.corrcoef(pieces[0].ravel(), pieces[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": 2}, "layers has no effect without"),
        ({"exclusive": 0.5, "kind": "layers"}, "exclusive has no effect without"),
        ({"depth": 2, "easy": True}, "depth has no effect without trees"),
        ({"branching": 2, "roots": 0}, "branching has no effect without trees"),
        ({"rank": 3, "easy": True}, "rank has no effect without a correlation above 0"),
        (
            {"kind": "layers", "features": 3, "layers": 4},
            "features is 3, of which blocks.3.mlp.hook_in has",
        ),
        ({"kind": "models", "features": 1, "exclusive": 1}, "features is 1, of which "),
        ({"rows": 3e9, "context_size": 1}, "more than 2,147,483,647 documents"),
        ({"kind": "crosscoder", "exclusive": 1.5}, "it is a fraction"),
        ({"p_max": 0.1, "p_min": 0.2}, "the most frequent feature has the larger"),
        ({"p_max": 1.5}, "probabilities are above 0"),
        ({"correlation": 0.5}, "its square times the rank"),
        ({"overlap": 0.05, "features": 64, "d_in": 8}, "64 directions in 8 dimensions overlap by"),
        ({"overlap": 1.0}, "it is a cosine, below 1"),
        ({"overlap": 0.5, "features": 1}, "a single feature overlaps with no other"),
        ({"features": 4, "roots": 5}, "there are 4 features"),
        ({"d_in": (8, 9, 10)}, "give it once, or once for each of the 1 sites"),
        ({"rows": 100}, "at least one context of 128 rows"),
        ({"magnitude_last": 0.0}, "what fires is not zero"),
    ],
)
def test_what_cannot_be_planted_is_refused_in_one_sentence(options, said):
    with pytest.raises(BadInput, match=said) as caught:
        planted(**options)
    assert "\n" not in str(caught.value)
