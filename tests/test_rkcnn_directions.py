"""Directions: the first right singular vector of each centred subset, with a sign."""

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.rkcnn import Moments, principal_directions, random_subsets
from rkstore.rkcnn.directions import BLOCK_SUBSETS


def rows(n: int = 400, d: int = 12) -> np.ndarray:
    """Skewed activations, each dimension with another variance."""
    generator = np.random.default_rng(1)
    return (generator.exponential(size=(n, d)) * np.linspace(1, 3, d)).astype(np.float32)


def covariance(x: np.ndarray) -> np.ndarray:
    return Moments.of(x, comoment=True).covariance


def subsets(d: int = 12, m: int = 4, h: int = 20) -> np.ndarray:
    return random_subsets(d, m, h, np.random.default_rng(2))


def skewness(x: np.ndarray, directions: np.ndarray) -> np.ndarray:
    projections = (x - x.mean(axis=0)).astype(np.float64) @ directions.T
    return (projections**3).mean(axis=0)


def test_directions_are_the_first_singular_vectors_up_to_sign() -> None:
    x, chosen = rows(), subsets()
    directions = principal_directions(covariance(x), chosen)
    for subset, direction in zip(chosen, directions, strict=True):
        centred = x[:, subset].astype(np.float64) - x[:, subset].mean(axis=0, dtype=np.float64)
        first = np.linalg.svd(centred, full_matrices=False)[2][0]
        assert abs(first @ direction[subset]) == pytest.approx(1, abs=1e-6)


def test_directions_are_unit_vectors_inside_their_subset() -> None:
    x, chosen = rows(), subsets()
    directions = principal_directions(covariance(x), chosen, x)
    assert directions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-6)
    outside = np.ones(directions.shape, bool)
    np.put_along_axis(outside, chosen, False, axis=1)
    assert not directions[outside].any()


@pytest.mark.parametrize("side", [1, -1])
def test_the_sign_follows_the_rare_large_values(side: int) -> None:
    x = side * rows()
    directions = principal_directions(covariance(x), subsets(), x)
    assert (skewness(x, directions) > 0).all()


def test_an_offset_of_the_rows_does_not_change_the_sign() -> None:
    x = rows()
    near = principal_directions(covariance(x), subsets(), x)
    far = principal_directions(covariance(x), subsets(), x - 1000)
    np.testing.assert_array_equal(near, far)


def test_without_rows_the_largest_entry_is_positive() -> None:
    directions = principal_directions(covariance(-rows()), subsets())
    largest = np.abs(directions).argmax(axis=1)
    assert (directions[np.arange(len(directions)), largest] > 0).all()


def test_where_the_projection_is_not_skewed_the_largest_entry_is_positive() -> None:
    x = np.array([[3, -1], [-3, 1], [1, 0], [-1, 0]], np.float32)
    (direction,) = principal_directions(covariance(x), np.array([[0, 1]]), x)
    assert direction[0] > 0 > direction[1]


def test_many_subsets_are_the_same_as_one_at_a_time() -> None:
    x, chosen = rows(), subsets(h=BLOCK_SUBSETS - 20)
    chosen = np.concatenate([chosen, chosen[:40]])
    together = principal_directions(covariance(x), chosen, x)
    alone = [principal_directions(covariance(x), chosen[i : i + 1], x)[0] for i in (0, 400, 531)]
    np.testing.assert_allclose(together[[0, 400, 531]], alone, atol=1e-6)


def test_a_partly_constant_subset_has_a_direction() -> None:
    x = rows()
    x[:, 3] = 2
    (direction,) = principal_directions(covariance(x), np.array([[3, 5]]), x)
    assert direction[5] == pytest.approx(1)
    assert direction[3] == 0


def test_a_constant_subset_is_refused_by_name() -> None:
    x = rows()
    x[:, [3, 7]] = 2
    with pytest.raises(BadInput, match="dimensions 3, 7 are all constant"):
        principal_directions(covariance(x), np.array([[1, 3], [3, 7]]))
