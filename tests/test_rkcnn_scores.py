"""Each score equals a plain twin written with numpy, scipy or scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from sklearn.neighbors import NearestNeighbors

from rkstore.errors import BadInput
from rkstore.rkcnn import SCORES, Moments, random_subsets, score_named
from rkstore.rkcnn.scores import Comparison, MomentScore, RowScore, knn

SUBSETS = random_subsets(10, 3, 15, np.random.default_rng(5))


def rows(n: int = 300) -> np.ndarray:
    generator = np.random.default_rng(4)
    return (generator.gamma(0.5, size=(n, 10)) * np.linspace(1, 4, 10)).astype(np.float32)


def some_labels(n: int = 300, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(6).integers(0, classes, n)


def moment_scores(name: str, x: np.ndarray, subsets: np.ndarray = SUBSETS) -> np.ndarray:
    score = score_named(name)
    assert isinstance(score, MomentScore)
    return score.of_subsets(Moments.of(x), subsets)


def row_score(name: str, x: np.ndarray, labels: np.ndarray | None = None, k: int = 5) -> float:
    score = score_named(name)
    assert isinstance(score, RowScore)
    classes = None if labels is None else torch.from_numpy(labels)
    comparison = Comparison(len(x), k, classes)
    score.check(comparison)
    return score.of_subset(torch.from_numpy(x), comparison)


def neighbors(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(x).kneighbors()


def separation(x: np.ndarray, labels: np.ndarray) -> float:
    x = x.astype(np.float64)
    between = within = 0.0
    for c in np.unique(labels):
        of_class = x[labels == c]
        centre = of_class.mean(axis=0)
        between += np.linalg.norm(centre - x.mean(axis=0))
        within += sum(np.sqrt(((row - centre) ** 2).sum() / len(of_class)) for row in of_class)
    return between / within


def test_the_table_names_every_score() -> None:
    assert {name: score.name for name, score in SCORES.items()} == {n: n for n in SCORES}
    assert set(SCORES) == {"kurtosis", "knn", "variance_ratio", "separation"}


def test_an_unknown_score_is_refused_with_the_list() -> None:
    with pytest.raises(BadInput, match=r"'entropy'.*kurtosis, knn, variance_ratio, separation"):
        score_named("entropy")


@pytest.mark.parametrize("offset", [0, 1000])
def test_kurtosis_is_the_mean_of_scipys_over_the_subset(offset: int) -> None:
    x = rows() + np.float32(offset)
    expected = kurtosis(x.astype(np.float64), axis=0)[SUBSETS].mean(axis=1)
    np.testing.assert_allclose(moment_scores("kurtosis", x), expected, rtol=1e-9)


def test_kurtosis_leaves_constant_dimensions_out() -> None:
    x = rows()
    x[:, :2] = 0.1
    both, one, none = moment_scores("kurtosis", x, np.array([[4, 5], [1, 4], [0, 1]]))
    four, five = kurtosis(x[:, 4:6].astype(np.float64), axis=0)
    assert both == pytest.approx((four + five) / 2)
    assert one == pytest.approx(four)
    assert np.isnan(none)


def test_variance_ratio_is_the_largest_over_the_mean() -> None:
    x = rows()
    variance = x.astype(np.float64).var(axis=0)[SUBSETS]
    expected = variance.max(axis=1) / variance.mean(axis=1)
    np.testing.assert_allclose(moment_scores("variance_ratio", x), expected, rtol=1e-9)


def test_variance_ratio_of_constant_dimensions_is_undefined() -> None:
    x = rows()
    x[:, :2] = 0.1
    one, none = moment_scores("variance_ratio", x, np.array([[1, 4], [0, 1]]))
    assert one == pytest.approx(2)
    assert np.isnan(none)


@pytest.mark.parametrize("k", [1, 5])
def test_knn_with_labels_is_the_share_of_neighbours_with_the_same_label(k: int) -> None:
    x, labels = rows()[:, :3], some_labels()
    found = neighbors(x, k)[1]
    expected = (labels[found] == labels[:, None]).mean()
    assert row_score("knn", x, labels, k) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_knn_without_labels_is_the_variance_of_the_density(k: int) -> None:
    x = rows()[:, :3]
    density = 1 / (neighbors(x, k)[0].mean(axis=1) + 1e-8)
    assert row_score("knn", x, k=k) == pytest.approx(density.var(), rel=1e-4)


def test_knn_sees_equal_rows_at_distance_zero() -> None:
    x = np.repeat(rows(6)[:, :3], 2, axis=0)
    x[-1] += 5
    density = 1 / (neighbors(x, 1)[0].mean(axis=1) + 1e-8)
    assert density.max() == pytest.approx(1e8)
    assert row_score("knn", x, k=1) == pytest.approx(density.var(), rel=1e-4)


@pytest.mark.parametrize("labels", [None, some_labels()])
def test_knn_is_the_same_when_distances_are_held_in_blocks(
    labels: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = row_score("knn", rows()[:, :3], labels)
    monkeypatch.setattr(knn, "BLOCK_DISTANCES", 7 * 300)
    assert row_score("knn", rows()[:, :3], labels) == whole


def test_knn_needs_a_row_more_than_neighbours() -> None:
    assert np.isfinite(row_score("knn", rows(6), k=5))
    with pytest.raises(BadInput, match="has 5 rows to compare and needs at least 6"):
        row_score("knn", rows(5), k=5)


def test_separation_equals_its_formula() -> None:
    x, labels = rows()[:, :3], some_labels()
    assert row_score("separation", x, labels) == pytest.approx(separation(x, labels), rel=1e-5)


def test_separation_counts_a_class_of_one_row() -> None:
    x, labels = rows(50)[:, :3], some_labels(50, classes=3)
    labels[7] = 3
    assert row_score("separation", x, labels) == pytest.approx(separation(x, labels), rel=1e-5)


def test_separation_is_larger_for_classes_further_apart() -> None:
    x, labels = rows()[:, :3], some_labels()
    apart = x + 5 * labels[:, None].astype(np.float32)
    assert row_score("separation", apart, labels) > 2 * row_score("separation", x, labels)


def test_separation_without_spread_is_undefined() -> None:
    assert np.isnan(row_score("separation", np.zeros((6, 3), np.float32), np.arange(6) % 2))


def test_separation_needs_labels() -> None:
    with pytest.raises(BadInput, match="separation score needs labels"):
        row_score("separation", rows())


def test_separation_needs_classes_of_several_rows() -> None:
    with pytest.raises(BadInput, match="a label of its own"):
        row_score("separation", rows(), np.arange(300))


@pytest.mark.parametrize("name", ["knn", "separation"])
def test_a_single_class_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="300 rows compared have the same label"):
        row_score(name, rows(), np.zeros(300, np.int64))
