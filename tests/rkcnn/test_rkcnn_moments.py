"""Streaming moments equal those of one big array, whatever its offset and its cuts."""

import numpy as np
import pytest
from scipy.stats import kurtosis

from rkstore.errors import BadInput
from rkstore.rkcnn import Moments
from rkstore.rkcnn.moments import Precision


def rows(n: int = 3000, d: int = 6, offset: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.gamma(1.5, size=(n, d)) + offset).astype(np.float32)


def cut(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def central(x: np.ndarray, power: int) -> np.ndarray:
    x = x.astype(np.longdouble)
    return ((x - x.mean(axis=0)) ** power).sum(axis=0).astype(np.float64)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("size", [1, 7, 512, 3000])
def test_moments_equal_those_of_the_whole(offset: float, size: int) -> None:
    x = rows(offset=offset)
    moments = Moments.over(cut(x, size))
    assert moments.count == 3000
    np.testing.assert_allclose(moments.mean, x.mean(axis=0, dtype=np.longdouble), rtol=1e-14)
    np.testing.assert_allclose(moments.m2, central(x, 2), rtol=1e-9)
    np.testing.assert_allclose(moments.m3, central(x, 3), rtol=1e-9)
    np.testing.assert_allclose(moments.m4, central(x, 4), rtol=1e-9)


def test_an_offset_costs_the_kurtosis_no_digits() -> None:
    x = rows(offset=1000.0)
    moments = Moments.over(cut(x, 256))
    excess = moments.m4 / moments.count / moments.variance**2 - 3
    np.testing.assert_allclose(excess, kurtosis(x.astype(np.float64), axis=0), rtol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_covariance_equals_numpy(offset: float, size: int) -> None:
    x = rows(offset=offset) @ np.triu(np.ones((6, 6), np.float32))
    covariance = Moments.over(cut(x, size), comoment=True).covariance
    expected = np.cov(x.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(covariance, expected, rtol=1e-9)


def correlated(n: int = 3000) -> np.ndarray:
    return rows(n) @ np.triu(np.ones((6, 6), np.float32))


def assert_near(found: np.ndarray, expected: np.ndarray, error: float) -> None:
    """Entries agree to a fraction of ``(variance · variance)^½``."""
    deviation = np.sqrt(np.diag(expected))
    np.testing.assert_allclose((found - expected) / deviation / deviation[:, None], 0, atol=error)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_float32_products_lose_no_more_than_they_say(
    scale: float, offset: float, size: int
) -> None:
    x = ((correlated() + offset) * scale).astype(np.float32)
    exact = Moments.over(cut(x, size), comoment=True).covariance
    found = Moments.over(cut(x, size), comoment=True, precision=np.float32).covariance
    assert_near(found, exact, 2e-6)
    np.testing.assert_array_equal(found, found.T)


def test_float32_products_bear_parts_that_drift_apart() -> None:
    x = correlated() + np.repeat([0, 1e4, -1e4], 1000)[:, None].astype(np.float32)
    exact = np.cov(x.T.astype(np.float64), bias=True)
    found = Moments.over(cut(x, 1000), comoment=True, precision=np.float32).covariance
    assert_near(found, exact, 2e-6)


def test_float32_products_bear_dimensions_of_any_size() -> None:
    x = correlated() * np.logspace(-30, 30, 6).astype(np.float32)
    exact = Moments.of(x, comoment=True).covariance
    assert_near(Moments.over(cut(x, 512), True, np.float32).covariance, exact, 2e-6)


def test_parts_may_drift_apart() -> None:
    x = rows() + np.repeat([0, 1e4, -1e4], 1000)[:, None].astype(np.float32)
    moments = Moments.over(cut(x, 1000), comoment=True)
    np.testing.assert_allclose(moments.m3, central(x, 3), rtol=1e-9)
    np.testing.assert_allclose(moments.m4, central(x, 4), rtol=1e-9)
    expected = np.cov(x.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-9)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_constant_dimension_has_moments_of_exactly_zero(precision: Precision) -> None:
    x = rows()
    x[:, 2] = np.float32(0.1)
    moments = Moments.over(cut(x, 301), comoment=True, precision=precision)
    assert moments.m2[2] == moments.m3[2] == moments.m4[2] == 0
    assert not moments.covariance[2].any()
    assert moments.mean[2] == np.float32(0.1)


def test_the_covariance_must_be_asked_for() -> None:
    with pytest.raises(BadInput, match="comoment=True"):
        _ = Moments.of(rows()).covariance


def test_no_rows_have_no_moments() -> None:
    with pytest.raises(BadInput, match="at least one block"):
        Moments.over([])
