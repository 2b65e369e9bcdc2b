"""Directions against known features: correlations, cosines, matchings, and what chance gives."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from rkstore.errors import BadInput
from rkstore.rkcnn import RkCNNProbe
from rkstore.rkcnn.recovery import feature_correlations, feature_recovery


def rows(n: int = 5000, d: int = 8, offset: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.gamma(0.5, size=(n, d)) + offset).astype(np.float32)


def directions(r: int = 5, d: int = 8) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((r, d))


def features(n: int = 5000, f: int = 3) -> np.ndarray:
    return np.random.default_rng(2).exponential(size=(n, f)) + rows(n)[:, :f]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_correlations_are_numpys(offset: float) -> None:
    x = rows(offset=offset)  # more rows than are read at once
    found = feature_correlations(directions(), x, features())
    projections = x.astype(np.float64) @ directions().T
    expected = np.corrcoef(projections.T, features().T)[:5, 5:]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-9)


def test_the_best_match_of_each_has_the_largest_absolute_correlation() -> None:
    found = feature_correlations(directions(), rows(), -features())
    np.testing.assert_array_equal(found.best_feature, np.abs(found.matrix).argmax(axis=1))
    np.testing.assert_array_equal(found.best_direction, np.abs(found.matrix).argmax(axis=0))


def test_a_feature_that_is_the_projection_correlates_wholly() -> None:
    known = -(rows().astype(np.float64) @ directions()[3:4].T)
    found = feature_correlations(directions(), rows(), known)
    assert found.matrix[3, 0] == pytest.approx(-1)
    assert found.best_direction.tolist() == [3]


def test_what_is_constant_has_no_correlation() -> None:
    x, known = rows(offset=1000.0), features()
    x[:, 0], known[:, 1] = 0.1, 0.1
    axes = directions()
    axes[2] = np.eye(8)[0]
    found = feature_correlations(axes, x, known)
    assert np.isnan(found.matrix[2]).all()
    assert np.isnan(found.matrix[:, 1]).all()
    assert found.matrix[np.ix_([0, 1, 3, 4], [0, 2])].any()
    assert found.best_feature[2] == -1
    assert found.best_direction[1] == -1


def test_what_a_probe_found_can_be_given_as_it_is() -> None:
    result = RkCNNProbe(8, h=20, r=5).probe(rows())
    assert result.top_directions is not None
    found = feature_correlations(result.top_directions, torch.from_numpy(rows()), features())
    assert found.matrix.shape == (5, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((directions(d=7), rows(), features()), "directions are 7 wide and the activations 8"),
        ((directions(), rows(), features(9)), "features have 9 rows and the activations 5000"),
        ((directions(), rows(1), features(1)), "needs at least 2 rows"),
        ((directions()[0], rows(), features()), r"directions have shape \(8,\).*give a matrix"),
        ((directions(), rows(), features() * np.nan), "features have a value that is not finite"),
    ],
)
def test_correlations_that_cannot_be_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        feature_correlations(*given)


def known(f: int = 4, d: int = 8) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((f, d))


def sizes() -> np.ndarray:
    """|cosines| of the directions and the known features, by definition."""
    a, b = directions(), known()
    return np.abs(a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def test_cosines_mmcs_and_found_are_those_of_their_definitions() -> None:
    found = feature_recovery(directions(), known(), threshold=0.4)
    np.testing.assert_allclose(np.abs(found.cosines), sizes(), rtol=1e-12)
    assert found.mmcs == pytest.approx(sizes().max(axis=0).mean())
    assert found.found == (sizes().max(axis=0) >= 0.4).mean()


def test_the_matching_is_the_best_of_all_there_are() -> None:
    found = feature_recovery(directions(), known(), threshold=0.4)
    every = list(itertools.permutations(range(5), 4))
    best = max(every, key=lambda match: sum(sizes()[list(match), range(4)]))
    assert found.match.tolist() == list(best)
    assert found.matched == (sizes()[list(best), range(4)] >= 0.4).mean()


def test_one_direction_finds_many_features_and_is_matched_to_one() -> None:
    found = feature_recovery(np.ones((1, 3)), np.ones((4, 3)))
    assert (found.found, found.matched) == (1.0, 0.25)
    assert sorted(found.match) == [-1, -1, -1, 0]


def test_features_themselves_are_recovered_wholly_and_beyond_chance() -> None:
    found = feature_recovery(-known(), known())
    assert (found.mmcs, found.found, found.matched) == (pytest.approx(1), 1, 1)
    assert found.match.tolist() == [0, 1, 2, 3]
    assert found.chance.p_value(found, "mmcs") == 1 / 201


def test_chance_is_that_of_random_directions_with_the_same_support() -> None:
    """In two dimensions a random |cosine| is at least t with probability 2 arccos(t) / π."""
    axes, feature = np.eye(8)[:1] + np.eye(8)[1:2], np.eye(8)[:1]
    found = feature_recovery(axes, feature, threshold=0.7, draws=4000)
    assert found.chance.found.mean() == pytest.approx(2 * np.arccos(0.7) / np.pi, abs=0.03)
    assert found.chance.mmcs.mean() == pytest.approx(2 / np.pi, abs=0.02)


def test_random_directions_recover_no_more_than_chance() -> None:
    """Their p-values are uniform: 40 of them have mean 1/2 but for 4 standard errors."""
    generator = np.random.default_rng(7)
    p = []
    for _ in range(40):
        found = feature_recovery(generator.standard_normal((6, 5)), known(4, 5), draws=50)
        p.append(found.chance.p_value(found, "mmcs"))
    assert np.mean(p) == pytest.approx(0.5, abs=4 * (1 / 12 / 40) ** 0.5)


def test_the_seed_decides_the_chance() -> None:
    one, same, other = (feature_recovery(directions(), known(), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.chance.mmcs, same.chance.mmcs)
    assert not np.array_equal(one.chance.mmcs, other.chance.mmcs)


def test_a_toy_models_features_are_recovered_from_its_rows() -> None:
    """Sparse features without superposition, each the source of a dimension pair."""
    generator = np.random.default_rng(0)
    weights = np.kron(np.eye(5), [0.6, 0.8])
    active = generator.uniform(size=(3000, 5)) * (generator.uniform(size=(3000, 5)) < 0.1)
    x = (active @ weights).astype(np.float32)
    found = RkCNNProbe(10, m=2, h=45, r=20, score_method="projection_kurtosis").probe(x)
    assert found.top_directions is not None
    recovery = feature_recovery(found.top_directions, weights, threshold=0.95)
    assert recovery.found > recovery.chance.found.mean()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": known(d=7)}, "directions are 8 wide and the features 7"),
        ({"features": np.zeros((2, 8))}, "row 0 of the features is zero"),
        ({"directions": np.zeros((2, 8))}, "row 0 of the directions is zero"),
        ({"directions": np.zeros((0, 8))}, "give a matrix of numbers"),
        ({"threshold": 1.5}, "threshold is 1.5: it must be above 0 and at most 1"),
        ({"draws": 0}, "draws is 0: it must be at least 1"),
    ],
)
def test_a_recovery_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        feature_recovery(**({"directions": directions(), "features": known()} | given))
