"""Random subsets: distinct, sorted, uniform, and the same for the same seed."""

import math
from collections import Counter

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.rkcnn import SUBSETS, basis_of, random_subsets
from rkstore.rkcnn.rotation import Rotation
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import member_named, options_in


def draw(d: int, m: int, h: int, seed: int = 0) -> np.ndarray:
    return random_subsets(d, m, h, np.random.default_rng(seed))


def distinct(subsets: np.ndarray) -> int:
    return len({tuple(row) for row in subsets.tolist()})


@pytest.mark.parametrize(("d", "m", "h"), [(768, 27, 600), (30, 3, 1500), (12, 12, 1), (9, 1, 4)])
def test_subsets_are_sorted_without_repetition_and_in_range(d: int, m: int, h: int) -> None:
    subsets = draw(d, m, h)
    assert subsets.shape == (h, m)
    assert subsets.dtype == np.int64
    assert (np.diff(subsets, axis=1) > 0).all()
    assert subsets.min() >= 0
    assert subsets.max() < d


# C(8, 3) = 56: drawn with repetition, some of 27 or of 56 subsets would be the same.
@pytest.mark.parametrize("h", [27, 40, 56])
def test_no_two_subsets_are_the_same(h: int) -> None:
    assert distinct(draw(8, 3, h)) == h


def test_repeated_draws_are_replaced() -> None:
    # 2000 draws of 5050 subsets repeat some 350 of them before they are made distinct.
    assert distinct(draw(101, 2, 2000)) == 2000


def test_when_more_are_asked_for_than_exist_all_are_returned_once() -> None:
    subsets = draw(5, 2, 100)
    assert len(subsets) == distinct(subsets) == math.comb(5, 2)


def test_every_subset_is_equally_likely() -> None:
    counts = Counter(tuple(draw(7, 2, 5, seed)[0]) for seed in range(4200))
    assert len(counts) == 21
    # 200 expected each, standard deviation 14.
    assert min(counts.values()) > 130
    assert max(counts.values()) < 270


def test_every_dimension_is_equally_likely() -> None:
    counts = np.bincount(draw(40, 10, 8000).ravel(), minlength=40)
    # 2000 expected each, standard deviation 39.
    assert np.abs(counts - 2000).max() < 200


def test_a_seed_determines_the_subsets() -> None:
    assert np.array_equal(draw(64, 8, 50, seed=3), draw(64, 8, 50, seed=3))
    assert not np.array_equal(draw(64, 8, 50, seed=3), draw(64, 8, 50, seed=4))


def named(name: str, d: int, m: int, h: int, seed: int = 0) -> np.ndarray:
    return SUBSETS[name]().draw(d, m, h, np.random.default_rng(seed))


def test_the_table_names_every_kind_and_the_command_line_knows_them() -> None:
    assert {name: kind.name for name, kind in SUBSETS.items()} == {n: n for n in SUBSETS}
    assert options_in(ProbeSettings)["subsets"].choices == SUBSETS


def test_an_unknown_kind_is_refused_with_the_list() -> None:
    with pytest.raises(BadInput, match="'cliques': choose one of coordinates, partitions, bases"):
        member_named("subsets", SUBSETS, "cliques", {})


@pytest.mark.parametrize("name", SUBSETS)
def test_every_kind_is_distinct_sorted_and_the_same_for_the_same_seed(name: str) -> None:
    subsets = named(name, 20, 4, 33)
    assert subsets.shape == (33, 4)
    assert subsets.dtype == np.int64
    assert (np.diff(subsets, axis=1) > 0).all()
    assert distinct(subsets) == 33
    np.testing.assert_array_equal(subsets, named(name, 20, 4, 33))
    assert not np.array_equal(subsets, named(name, 20, 4, 33, seed=1))


@pytest.mark.parametrize("name", SUBSETS)
def test_every_kind_spans_an_orthonormal_basis(name: str) -> None:
    for subset in named(name, 20, 4, 12):
        basis = basis_of(subset, 20)
        assert basis.shape == (20, 4)
        np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)


def test_the_basis_of_dimensions_is_the_dimensions_themselves() -> None:
    np.testing.assert_array_equal(basis_of(np.array([1, 3]), 4), np.eye(4)[:, [1, 3]])


def test_partitions_share_no_dimension_within_a_permutation() -> None:
    subsets = named("partitions", 23, 5, 12)  # four groups each, three dimensions left out
    for start in range(0, 12, 4):
        assert len(np.unique(subsets[start : start + 4])) == 20


@pytest.mark.parametrize("name", ["coordinates", "partitions"])
def test_all_subsets_come_when_more_are_asked_for_than_exist(name: str) -> None:
    assert len(named(name, 5, 2, 100)) == distinct(named(name, 5, 2, 100)) == math.comb(5, 2)


def test_bases_of_one_rotation_are_orthogonal_to_each_other() -> None:
    bases = np.concatenate([basis_of(subset, 20) for subset in named("bases", 20, 4, 5)], axis=1)
    np.testing.assert_allclose(bases.T @ bases, np.eye(20), atol=1e-12)


def test_bases_of_the_whole_space_are_all_the_same() -> None:
    assert len(named("bases", 6, 6, 10)) == 1


@pytest.mark.parametrize("d", [1, 20, 300])
def test_a_rotation_is_orthogonal_and_knows_its_inverse_and_its_columns(d: int) -> None:
    turn, x = Rotation(d, 7), np.random.default_rng(0).standard_normal((5, d))
    matrix = turn.of(np.eye(d))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(d), atol=1e-12)
    np.testing.assert_allclose(turn.of(x), x @ matrix, atol=1e-12)
    np.testing.assert_allclose(turn.back(turn.of(x)), x, atol=1e-12)
    np.testing.assert_allclose(
        turn.columns(np.array([d - 1, 0])), matrix[:, [d - 1, 0]], atol=1e-12
    )
    assert np.abs(matrix - Rotation(d, 8).of(np.eye(d))).max() > 0.1 or d == 1


def test_large_rotations_mix_all_dimensions_alike() -> None:
    """Entries look normal with variance 1/d: no dimension is preferred, none is left out."""
    entries = Rotation(300, 3).of(np.eye(300)) * 300**0.5
    np.testing.assert_allclose((entries**2).mean(axis=0), 1, atol=1e-9)
    assert (entries**4).mean() == pytest.approx(3, rel=0.05)
    assert np.abs(entries).max() < 6


def test_small_rotations_are_uniform() -> None:
    """The square of an entry has mean 1/d and variance 2 (d - 1) / (d² (d + 2)); signs are even."""
    entries = np.array([Rotation(4, number).of(np.eye(4))[0, 0] for number in range(1, 2001)])
    assert (entries**2).mean() == pytest.approx(1 / 4, abs=4 * (6 / 96 / 2000) ** 0.5)
    assert entries.mean() == pytest.approx(0, abs=4 * (1 / 4 / 2000) ** 0.5)
