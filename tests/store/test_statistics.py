"""Statistics of rows, merged from pieces, against NumPy on all rows at once."""

from functools import reduce

import numpy as np
import pytest

from rkstore.store.statistics import Statistics

FIELDS = ("mean", "m2", "min", "max", "positive")


def rows(n=1000, d=6, offset=0.0, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)) * np.geomspace(0.01, 100, d)
    return (x + offset).astype(np.float32)


def in_pieces(x, cuts):
    return reduce(Statistics.merge, [Statistics.of(part) for part in np.split(x, cuts)])


def assert_close(a, b, rtol=1e-12):
    assert a.count == b.count
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol, err_msg=name)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e7])
@pytest.mark.parametrize("cuts", [[], [1], [999], [10, 500, 501], list(range(1, 1000))])
def test_statistics_merged_from_pieces_are_those_of_all_rows(offset, cuts):
    x = rows(offset=offset)
    whole = x.astype(np.float64)
    merged = in_pieces(x, cuts)
    assert merged.count == 1000
    # The mean is near zero where there is no offset: compare it on the scale of the values.
    np.testing.assert_allclose(merged.mean, whole.mean(0), 1e-12, 1e-12)
    np.testing.assert_allclose(merged.variance, whole.var(0), 1e-9)
    np.testing.assert_array_equal(merged.min, whole.min(0))
    np.testing.assert_array_equal(merged.max, whole.max(0))
    np.testing.assert_array_equal(merged.positive, (whole > 0).sum(0))
    np.testing.assert_allclose(merged.mean_square_norm, (whole**2).sum(1).mean(), 1e-12)


def test_a_large_offset_does_not_swallow_a_small_variance():
    x = rows(offset=2.0**20)[:, :1]
    x[::2] = 2.0**20 + 0.125
    x[1::2] = 2.0**20 - 0.125
    merged = in_pieces(x, list(range(7, 1000, 7)))
    np.testing.assert_allclose(merged.variance, [0.125**2], 1e-9)


@pytest.mark.parametrize("cuts", [[500], [3, 997], [250, 500, 750]])
def test_it_does_not_matter_where_the_rows_are_cut(cuts):
    x = rows(offset=3.0)
    assert_close(in_pieces(x, cuts), Statistics.of(x))


def test_it_does_not_matter_which_of_two_is_merged_into_the_other():
    a, b = Statistics.of(rows(300, offset=1.0)), Statistics.of(rows(40, offset=-2.0, seed=1))
    assert_close(a.merge(b), b.merge(a))


def test_merging_changes_neither_of_the_two():
    a, b = Statistics.of(rows(30)), Statistics.of(rows(40, seed=1))
    before = a.mean.copy(), b.m2.copy(), a.count
    a.merge(b)
    np.testing.assert_array_equal(a.mean, before[0])
    np.testing.assert_array_equal(b.m2, before[1])
    assert a.count == before[2]


def test_a_constant_has_exactly_no_variance():
    x = np.full((50, 2), np.float32(0.1))
    assert (in_pieces(x, [3, 20]).variance == 0).all()


def test_zero_is_not_positive():
    x = np.array([[0.0, -0.0, 1e-45], [-1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_array_equal(Statistics.of(x).positive, [0, 1, 2])


def test_everything_is_kept_in_double_precision():
    statistics = in_pieces(rows(), [400])
    assert all(getattr(statistics, name).dtype == np.float64 for name in FIELDS)


def test_arrays_for_a_file_give_the_same_statistics_back():
    statistics = in_pieces(rows(), [400])
    back = Statistics.from_arrays(statistics.as_arrays())
    assert back.count == statistics.count
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(back, name), getattr(statistics, name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": np.array([np.inf])},
        {"count": np.array([3.0])},
        {"count": np.array(3)},
        {"count": np.array([3, 3])},
        {"count": np.array([0])},
        {"count": np.array([-3])},
        {"mean": np.zeros(1)},
        {"mean": np.zeros((6, 1))},
        {"mean": np.zeros(6, np.float32)},
        {"m2": np.zeros(6, np.complex128)},
        {name: np.zeros((2, 3)) for name in FIELDS},
    ],
    ids=str,
)
def test_arrays_that_are_no_statistics_are_refused(wrong):
    with pytest.raises(ValueError):
        Statistics.from_arrays(Statistics.of(rows(30)).as_arrays() | wrong)
