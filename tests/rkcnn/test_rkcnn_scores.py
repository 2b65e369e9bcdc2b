"""Each score equals a plain twin written with numpy, scipy or scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kurtosis, norm, skew
from sklearn.neighbors import NearestNeighbors

from rkstore.errors import BadInput
from rkstore.rkcnn import SCORES, Moments, random_subsets, score_named
from rkstore.rkcnn import neighbors as neighbors_module
from rkstore.rkcnn.neighbors import nearest
from rkstore.rkcnn.scores import separation as module
from rkstore.rkcnn.scores.base import Comparison, DirectionScore, MomentScore, RowScore
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import options_in

SUBSETS = random_subsets(10, 3, 15, np.random.default_rng(5))


def rows(n: int = 300) -> np.ndarray:
    generator = np.random.default_rng(4)
    return (generator.gamma(0.5, size=(n, 10)) * np.linspace(1, 4, 10)).astype(np.float32)


def some_labels(n: int = 300, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(6).integers(0, classes, n)


def moment_scores(name: str, x: np.ndarray, subsets: np.ndarray = SUBSETS) -> np.ndarray:
    score = score_named(name)
    assert isinstance(score, MomentScore)
    return score.of_subsets(Moments.of(x, largest=score.needs_largest), subsets)


def projection_scores(name: str, projections: np.ndarray) -> np.ndarray:
    score = score_named(name)
    assert isinstance(score, DirectionScore)
    return score.of_projections(projections)


def row_scores(
    name: str,
    x: np.ndarray,
    labels: np.ndarray | None = None,
    k: int = 5,
    asking: np.ndarray | None = None,
    subsets: np.ndarray | None = None,
) -> np.ndarray:
    score = score_named(name, k_neighbors=k)
    assert isinstance(score, RowScore)
    classes, queries = (None if a is None else torch.from_numpy(a) for a in (labels, asking))
    comparison = Comparison(len(x), classes, queries)
    score.check(comparison)
    chosen = np.arange(x.shape[1])[None] if subsets is None else subsets
    return score.of_subsets(torch.from_numpy(x), torch.from_numpy(chosen), comparison)


def row_score(name: str, x: np.ndarray, labels: np.ndarray | None = None, k: int = 5) -> float:
    return float(row_scores(name, x, labels, k)[0])


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
    assert options_in(ProbeSettings)["score"].choices == SCORES


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


@pytest.mark.parametrize("noise", [0.0, 1e-6])
@pytest.mark.parametrize("copies", [6, 40])
def test_copies_of_one_row_do_not_decide_knn(copies: int, noise: float) -> None:
    """As the BOS rows of all blocks are, but for roundings."""
    x = rows()[:, :3]
    alone = row_score("knn", x, k=5)
    point = np.random.default_rng(3).standard_normal((1, 3)) * noise + 50
    x = np.concatenate([x, np.repeat(point, copies, axis=0).astype(np.float32)])
    x[-copies:] += noise * np.random.default_rng(4).standard_normal((copies, 3))
    assert row_score("knn", x.astype(np.float32), k=5) == pytest.approx(alone, rel=1e-3)


def test_knn_of_rows_that_are_all_copies_has_no_score() -> None:
    assert np.isnan(row_score("knn", np.ones((20, 3), np.float32), k=5))


@pytest.mark.parametrize("labels", [None, some_labels()])
def test_knn_is_the_same_when_distances_are_held_in_blocks(
    labels: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = row_score("knn", rows()[:, :3], labels)
    monkeypatch.setattr(neighbors_module, "BLOCK_DISTANCES", 7 * 300)
    monkeypatch.setattr(neighbors_module, "GROUP_ROWS", 3)
    assert row_score("knn", rows()[:, :3], labels) == whole


def all_distances(x: np.ndarray) -> np.ndarray:
    """From every row to every other, ascending, by float64 differences, ``(n, n - 1)``."""
    wide = x.astype(np.float64)
    distances = np.linalg.norm(wide[:, None] - wide, axis=2)
    return np.sort(distances, axis=1)[:, 1:]


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
@pytest.mark.parametrize("offset", [0, 1000])
def test_nearest_rows_are_those_of_float64_differences(scale: float, offset: float) -> None:
    x = ((rows() + offset) * scale).astype(np.float32)
    distances, found = nearest(torch.from_numpy(x), torch.arange(len(x)), 5)
    np.testing.assert_allclose(distances, all_distances(x)[:, :5], rtol=1e-4)
    assert (found != torch.arange(len(x))[:, None]).all()


def test_nearest_rows_are_found_where_a_product_cannot_tell_them_apart() -> None:
    """Clusters far away and tight: by the product all rows of one have the same distance."""
    near = rows(60).repeat(5, axis=0) * 1e4
    x = (near + 0.1 * np.random.default_rng(1).standard_normal(near.shape)).astype(np.float32)
    distances, _ = nearest(torch.from_numpy(x), torch.arange(len(x)), 3)
    np.testing.assert_allclose(distances, all_distances(x)[:, :3], rtol=1e-4)


def test_many_equal_rows_are_nearest_to_each_other() -> None:
    x = rows(100)
    x[20:80] = x[20]
    distances, found = nearest(torch.from_numpy(x), torch.arange(100), 5)
    np.testing.assert_allclose(distances, all_distances(x)[:, :5], rtol=1e-4)
    assert ((found[20:80] >= 20) & (found[20:80] < 80)).all()


@pytest.mark.parametrize("labels", [None, some_labels()])
def test_knn_asked_by_some_rows_scores_those_rows(labels: np.ndarray | None) -> None:
    asking, x = np.arange(5, 300, 3), rows()[:, :3]
    distances, found = neighbors(x, 5)
    if labels is None:
        expected = (1 / (distances[asking].mean(axis=1) + 1e-8)).var()
    else:
        expected = (labels[found[asking]] == labels[asking, None]).mean()
    assert row_scores("knn", x, labels, asking=asking)[0] == pytest.approx(expected, rel=1e-4)


def test_the_error_of_asking_few_rows_is_the_one_stated() -> None:
    """200 draws of q = 50 rows: their standard deviation is known to 5 %."""
    x, labels, q = rows()[:, :3], (rows()[:, 0] > 0.3).astype(np.int64), 50
    share = (labels[neighbors(x, 5)[1]] == labels[:, None]).mean(axis=1)
    generator = np.random.default_rng(0)
    estimates = [
        row_scores("knn", x, labels, asking=generator.choice(300, q, replace=False))[0]
        for _ in range(200)
    ]
    stated = share.std() * (1 / q - 1 / 300) ** 0.5
    assert np.std(estimates) == pytest.approx(stated, rel=0.2)
    assert np.mean(estimates) == pytest.approx(share.mean(), abs=4 * stated / 200**0.5)


@pytest.mark.parametrize("name", ["knn", "separation"])
def test_subsets_scored_together_score_as_they_do_alone(name: str) -> None:
    x, labels = rows(), some_labels()
    together = row_scores(name, x, labels, subsets=SUBSETS)
    alone = [row_score(name, x[:, subset], labels) for subset in SUBSETS]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_knn_needs_a_row_more_than_neighbours() -> None:
    assert np.isfinite(row_score("knn", rows(6), k=5))
    with pytest.raises(BadInput, match="has 5 rows to compare and needs at least 6"):
        row_score("knn", rows(5), k=5)


def test_separation_equals_its_formula() -> None:
    x, labels = rows()[:, :3], some_labels()
    assert row_score("separation", x, labels) == pytest.approx(separation(x, labels), rel=1e-5)


@pytest.mark.parametrize("block", [1, 7, 300])
def test_separation_is_the_same_however_many_rows_are_held(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    x, labels = rows(), some_labels()
    expected = [separation(x[:, subset], labels) for subset in SUBSETS]
    np.testing.assert_allclose(
        row_scores("separation", x, labels, subsets=SUBSETS), expected, rtol=1e-5
    )


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
    with pytest.raises(BadInput, match="its own label"):
        row_score("separation", rows(), np.arange(300))


@pytest.mark.parametrize("name", ["knn", "separation"])
def test_a_single_class_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="300 rows compared have the same label"):
        row_score(name, rows(), np.zeros(300, np.int64))


def test_max_activation_is_the_largest_absolute_value_in_the_subset() -> None:
    x = rows() - 2
    expected = [np.abs(x[:, subset]).max() for subset in SUBSETS]
    np.testing.assert_array_equal(moment_scores("max_activation", x), np.array(expected))


def test_max_activation_is_the_same_however_the_rows_are_cut() -> None:
    x = rows() - 2
    cut = Moments.over([x[:100], x[100:]], largest=True)
    np.testing.assert_array_equal(cut.largest, np.abs(x).max(axis=0).astype(np.float64))


def test_random_scores_are_uniform_and_their_seed_is_the_comparisons() -> None:
    def draw(seed: int) -> np.ndarray:
        comparison = Comparison(3, generator=np.random.default_rng(seed))
        subsets = torch.zeros((4000, 3), dtype=torch.int64)
        score = score_named("random")
        assert isinstance(score, RowScore)
        return score.of_subsets(torch.zeros(3, 10), subsets, comparison)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    np.testing.assert_allclose(
        np.quantile(draw(1), [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03
    )


def test_projection_kurtosis_and_skewness_are_scipys() -> None:
    x = rows() + np.float32(100)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(projection_scores("projection_kurtosis", x), kurtosis(wide), 1e-9)
    np.testing.assert_allclose(projection_scores("projection_skewness", x), skew(wide), 1e-9)


def test_projection_negentropy_is_the_squared_difference_from_a_normal() -> None:
    x = rows().astype(np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    of_a_normal = quad(lambda v: np.log(np.cosh(v)) * norm.pdf(v), -20, 20)[0]
    expected = (np.log(np.cosh(z)).mean(axis=0) - of_a_normal) ** 2
    found = projection_scores("projection_negentropy", rows())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_projection_negentropy_of_a_normal_is_nothing() -> None:
    normal = norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None].astype(np.float32)
    assert projection_scores("projection_negentropy", normal)[0] < 1e-9
    assert projection_scores("projection_negentropy", normal**2)[0] > 1e-3


@pytest.mark.parametrize("name", [n for n in SCORES if n.startswith("projection_")])
def test_a_projection_that_does_not_vary_has_no_score(name: str) -> None:
    x = rows()[:, :2].copy()
    x[:, 1] = 0.5
    one, none = projection_scores(name, x)
    assert np.isfinite(one)
    assert np.isnan(none)
