"""Random subsets: distinct, sorted, uniform, and the same for the same seed."""

import math
from collections import Counter

import numpy as np
import pytest

from rkstore.rkcnn import random_subsets


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
