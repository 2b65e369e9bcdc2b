"""Sparse probes: a planted latent is found, and shuffled labels score at chance."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from rkstore.errors import BadInput
from rkstore.evaluation.latents.probing import (
    Balanced,
    best_features,
    correlations,
    dense_probe,
    interval_by_group,
    probe,
)

ROWS = 3000


@pytest.fixture(scope="module")
def planted():
    """Random latents, of which number 7 fires on a class and 3 on half of it."""
    rng = np.random.default_rng(0)
    is_one = rng.random(ROWS) < 0.2
    code = rng.exponential(size=(ROWS, 20)) * (rng.random((ROWS, 20)) < 0.1)
    code[:, 7] = is_one * rng.uniform(1, 2, ROWS)
    code[:, 3] = (is_one & (rng.random(ROWS) < 0.5)) * 50
    raw = rng.standard_normal((ROWS, 6)) + 3 * is_one[:, None] * (np.arange(6) == 2)
    group = np.arange(ROWS) // 10
    train = group % 4 > 0
    rows = Balanced.of("planted", is_one.astype(np.int8), train, 0)
    return rows, csr_matrix(code.astype(np.float32)), raw, group, train


def probed(planted, name="planted", ks=(1, 3), **more):
    rows, code, raw, group, _ = planted
    features = {"latents": code, "raw dimensions": raw} | more
    dense = dense_probe(rows, raw, group)
    return probe(name, rows, features, dense, group, ks)


def test_the_planted_latent_is_the_best_one_and_tells_the_class(planted):
    found = probed(planted)
    assert found.latents[:2] == (7, 3)
    assert found.accuracy["latents"][1].value == 1
    assert found.accuracy["raw dimensions"][1].value == pytest.approx(0.93, abs=0.04)
    assert found.dense.value == pytest.approx(0.93, abs=0.04)


def test_every_probe_with_shuffled_labels_scores_at_chance(planted):
    found = probed(planted)
    shuffled = [a.shuffled for by_k in found.accuracy.values() for a in by_k.values()]
    assert [*shuffled, found.dense.shuffled] == pytest.approx([0.5] * 5, abs=0.08)
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.04)


def test_latents_that_know_nothing_score_at_chance(planted):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((ROWS, 30))
    found = probed(planted, noise=noise)
    assert found.accuracy["noise"][3].value == pytest.approx(0.5, abs=0.08)


def test_correlations_are_those_of_numpy_dense_or_sparse(planted):
    rows, code, _, _, _ = planted
    y = rows.y
    x = code.toarray().astype(np.float64)
    twin = [np.corrcoef(x[:, i], y)[0, 1] for i in range(20)]
    assert correlations(x, y) == pytest.approx(twin, rel=1e-6)
    assert correlations(code, y) == pytest.approx(twin, rel=1e-6)


def test_the_unit_of_a_feature_does_not_matter_and_one_that_does_not_vary_comes_last():
    rng = np.random.default_rng(0)
    y = rng.random(200) < 0.5
    x = np.stack([np.full(200, 7.3), y + rng.normal(0, 0.5, 200), rng.normal(0, 1, 200)], axis=1)
    assert (
        best_features(x, y).tolist() == best_features(x * [1, 1e-3, 1e4], y).tolist() == [1, 2, 0]
    )
    assert correlations(x, y)[0] == 0


def test_both_sides_have_as_many_rows_and_training_shares_none_with_the_rest(planted):
    rows, _, _, group, train = planted
    assert rows.y[rows.train].mean() == rows.y[rows.test].mean() == 0.5
    assert train[rows.train].all()
    assert not train[rows.test].any()
    assert not set(group[rows.train]) & set(group[rows.test])


def test_rows_that_a_class_is_not_told_apart_from_are_never_drawn():
    labels = np.tile(np.array([1, 0, -1], np.int8), 300)
    rows = Balanced.of("x", labels, np.arange(900) < 600, 0)
    assert (labels[np.concatenate([rows.train, rows.test])] >= 0).all()
    assert (len(rows.train), len(rows.test)) == (400, 200)


@pytest.mark.parametrize(
    ("of_class", "others", "said"),
    [
        (39, 500, "rare has 39 rows, and 400 others, to train a probe on, and needs 40 of both"),
        (500, 39, "rare has 400 rows, and 39 others, to train a probe on"),
        (59, 500, "rare has 19 rows, and 100 others, to measure a probe on, and needs 20"),
    ],
)
def test_a_class_without_enough_rows_is_refused(of_class, others, said):
    labels = np.concatenate([np.ones(of_class, np.int8), np.zeros(others, np.int8)])
    within = np.concatenate([np.arange(of_class), np.arange(others)])
    limit = 40 if of_class == 59 else 400
    train = np.where(labels == 1, within < limit, within < 400)
    with pytest.raises(BadInput, match=said):
        Balanced.of("rare", labels, train, 0)


def test_rows_of_one_document_widen_the_interval():
    right = np.repeat(np.arange(20) % 2, 50)
    alone = interval_by_group(right, np.arange(1000))
    together = interval_by_group(right, np.repeat(np.arange(20), 50))
    assert alone[0] < 0.5 < alone[1]
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_the_interval_of_single_rows_is_that_of_a_share():
    right = np.arange(1000) % 4 > 0
    low, high = interval_by_group(right, np.arange(1000))
    width = 2 * 1.96 * np.sqrt(0.75 * 0.25 / 1000)
    assert high - low == pytest.approx(width, rel=0.15)
