"""The classifier of the paper: a scikit-learn estimator, and each of its formulas by definition."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.utils.estimator_checks import parametrize_with_checks

from rkstore.errors import BadInput
from rkstore.rkcnn.classifier import RkCNNClassifier


@parametrize_with_checks([RkCNNClassifier(h=20), RkCNNClassifier(h=10, ensemble=True)])
def test_it_is_an_estimator_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def labelled(n: int = 120, d: int = 9, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    return generator.standard_normal((n, d)) + labels[:, None] * np.linspace(0, 2, d), labels


def kth_distances(x: np.ndarray, y: np.ndarray, asked: np.ndarray, k: int) -> np.ndarray:
    """``(n, k, classes)``: the first to k-th smallest distance to each class."""
    by_class = [NearestNeighbors(n_neighbors=k).fit(x[y == c]) for c in np.unique(y)]
    return np.stack([index.kneighbors(asked)[0] for index in by_class], axis=2)


def separation(x: np.ndarray, y: np.ndarray) -> float:
    between = within = 0.0
    for c in np.unique(y):
        rows = x[y == c]
        between += np.linalg.norm(rows.mean(axis=0) - x.mean(axis=0))
        within += (np.linalg.norm(rows - rows.mean(axis=0), axis=1) / len(rows) ** 0.5).sum()
    return between / within


def test_with_all_features_it_is_k_conditional_nearest_neighbours() -> None:
    x, y = labelled()
    asked = x + 0.1
    likelihood = 1 / (kth_distances(x, y, asked, 4)[:, -1] + 1e-7)
    expected = likelihood / likelihood.sum(axis=1, keepdims=True)
    found = RkCNNClassifier(m=9, h=1, k_neighbors=4).fit(x, y).predict_proba(asked)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_an_ensemble_is_the_mean_over_the_neighbours() -> None:
    x, y = labelled()
    asked = x + 0.1
    likelihood = 1 / (kth_distances(x, y, asked, 4) + 1e-7)
    expected = (likelihood / likelihood.sum(axis=2, keepdims=True)).mean(axis=1)
    model = RkCNNClassifier(m=9, h=1, k_neighbors=4, ensemble=True).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(asked), expected, rtol=1e-9)


def test_distances_may_have_another_power() -> None:
    x, y = labelled()
    likelihood = (kth_distances(x, y, x + 0.1, 5)[:, -1] + 1e-7) ** -9.0
    expected = likelihood / likelihood.sum(axis=1, keepdims=True)
    found = RkCNNClassifier(m=9, h=1, power=9).fit(x, y).predict_proba(x + 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_with_one_neighbour_it_is_the_nearest_neighbour() -> None:
    x, y = labelled()
    found = RkCNNClassifier(m=9, h=1, k_neighbors=1).fit(x, y).predict(x + 0.1)
    expected = KNeighborsClassifier(1).fit(x, y).predict(x + 0.1)
    np.testing.assert_array_equal(found, expected)


def test_the_subsets_of_the_largest_separation_are_kept_best_first() -> None:
    x, y = labelled()
    model = RkCNNClassifier(m=2, h=36, r=10).fit(x, y)  # all there are
    expected = [separation(x[:, subset], y) for subset in model.subsets_]
    np.testing.assert_allclose(model.scores_, expected, rtol=1e-5)
    every = sorted((separation(x[:, [i, j]], y) for i in range(9) for j in range(i)), reverse=True)
    np.testing.assert_allclose(model.scores_, every[:10], rtol=1e-5)


def test_probabilities_are_averaged_with_the_weight_of_the_separation() -> None:
    x, y = labelled()
    model = RkCNNClassifier(m=2, h=20, r=5).fit(x, y)
    np.testing.assert_allclose(model.weights_, model.scores_ / model.scores_.sum())
    alone = [
        RkCNNClassifier(m=2, h=1).fit(x[:, subset], y).predict_proba(x[:, subset] + 0.1)
        for subset in model.subsets_
    ]
    expected = np.tensordot(model.weights_, alone, axes=1)
    np.testing.assert_allclose(model.predict_proba(x + 0.1), expected, rtol=1e-9)


def test_without_weights_every_subset_counts_alike() -> None:
    model = RkCNNClassifier(m=2, h=20, r=5, weighted=False).fit(*labelled())
    np.testing.assert_allclose(model.weights_, 1 / 5)


def test_a_class_of_few_rows_counts_its_farthest() -> None:
    x, y = labelled()
    few = np.concatenate([np.flatnonzero(y != 2), np.flatnonzero(y == 2)[:3]])
    model = RkCNNClassifier(m=9, h=1, k_neighbors=5).fit(x[few], y[few])
    fifth = kth_distances(x[few][:-3], y[few][:-3], x, 5)[:, -1]
    third = kth_distances(x[few][-3:], y[few][-3:], x, 3)[:, -1]
    likelihood = 1 / (np.concatenate([fifth, third], axis=1) + 1e-7)
    expected = likelihood / likelihood.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=1e-9)


def test_it_is_the_same_when_distances_are_held_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from rkstore.rkcnn import classifier as module

    x, y = labelled()
    model = RkCNNClassifier(h=10).fit(x, y)
    whole = model.predict_proba(x)
    monkeypatch.setattr(module, "BLOCK_DISTANCES", 7 * len(x))
    np.testing.assert_array_equal(model.predict_proba(x), whole)


def test_the_seed_decides_the_subsets() -> None:
    one, same, other = (RkCNNClassifier(random_state=s).fit(*labelled(d=30)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.subsets_, same.subsets_)
    assert not np.array_equal(one.subsets_, other.subsets_)


def test_among_much_noise_it_beats_plain_neighbours() -> None:
    """What the paper is for: 5 of 200 features tell the classes apart."""
    x, y = make_classification(
        300, 200, n_informative=5, n_redundant=0, n_clusters_per_class=1, random_state=1
    )
    train, held_out, of_train, of_held_out = train_test_split(x, y, random_state=0)
    ours = RkCNNClassifier(h=1000, r=50, m=5).fit(train, of_train).score(held_out, of_held_out)
    plain = KNeighborsClassifier(5).fit(train, of_train).score(held_out, of_held_out)
    assert ours > plain + 0.1


def test_labels_may_be_words() -> None:
    x, y = labelled()
    words = np.array(["noun", "other", "verb"])[y]
    by_word = RkCNNClassifier(h=10).fit(x, words).predict(x)
    by_number = RkCNNClassifier(h=10).fit(x, y).predict(x)
    np.testing.assert_array_equal(by_word, np.array(["noun", "other", "verb"])[by_number])


def test_where_no_class_spreads_every_subset_counts_alike() -> None:
    x = np.repeat(np.eye(2), 5, axis=0)
    model = RkCNNClassifier(m=1, h=2, r=2).fit(x, np.repeat([0, 1], 5))
    assert np.isnan(model.scores_).all()
    np.testing.assert_array_equal(model.weights_, [0.5, 0.5])
    np.testing.assert_array_equal(model.predict(x), np.repeat([0, 1], 5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, "m is 0: it must be at least 1"),
        ({"m": 10}, "m is 10 and there are only 9 features: choose m up to 9"),
        ({"h": 0}, "h is 0: it must be at least 1"),
        ({"r": 0}, "r is 0 and 84 distinct subsets are drawn: choose r from 1 to 84"),
        ({"h": 20, "r": 21}, "r is 21 and 20 distinct subsets are drawn: choose r from 1 to 20"),
        ({"k_neighbors": 0}, "k_neighbors is 0: it must be at least 1"),
        ({"power": 0}, "power is 0: it must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    assert math.comb(9, 3) == 84
    with pytest.raises(BadInput, match=message):
        RkCNNClassifier(**settings).fit(*labelled())


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(BadInput, match="all 120 rows have one class, 3: give at least two"):
        RkCNNClassifier().fit(labelled()[0], np.full(120, 3))


def test_labels_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RkCNNClassifier().fit(labelled()[0], labelled()[1][:-1])
