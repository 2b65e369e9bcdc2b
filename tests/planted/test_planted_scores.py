"""Scores against the truth: the truth has 1, random directions and permuted rows have chance."""

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.planted.features import plant_features
from rkstore.planted.scores import (
    CodeCounts,
    best_features,
    chance_directions,
    direction_scores,
)
from rkstore.planted.settings import PlantSettings

PLANTED = plant_features(PlantSettings(features=60, roots=1, d_in=16))
_, TRUE = PLANTED.at()
CODE = PLANTED.codes(0, 3000)
CODE = CODE[:, CODE.any(axis=0)]
TRUE = TRUE[PLANTED.codes(0, 3000).any(axis=0)]


def counted(decoder, code, true_code=CODE, **more):
    counts = CodeCounts(best_features(decoder, TRUE))
    counts.add(code, true_code, **more)
    return counts.scores()


def test_the_truth_itself_scores_one():
    found = direction_scores(TRUE, TRUE)
    assert (found.mean_max_cosine, found.mcc, found.uniqueness) == pytest.approx((1, 1, 1))
    x = CODE @ TRUE
    scores = counted(TRUE, CODE, x=x, reconstruction=x)
    assert vars(scores.firing) == {"precision": 1, "recall": 1, "f1": 1, "accuracy": 1}
    assert scores.l0 == scores.true_l0 == pytest.approx((CODE > 0).sum(axis=1).mean())
    assert (scores.dead, scores.shrinkage) == (0, 1)


def test_order_sign_and_length_of_latents_do_not_matter():
    rng = np.random.default_rng(0)
    decoder, code = rng.standard_normal((40, 16)), rng.standard_normal((3000, 40)).clip(0)
    order, size = rng.permutation(40), rng.uniform(0.1, 5, 40) * rng.choice([-1, 1], 40)
    moved = (decoder * size[:, None])[order]
    one, two = direction_scores(decoder, TRUE), direction_scores(moved, TRUE)
    assert vars(one) == pytest.approx(vars(two))
    assert vars(counted(decoder, code).firing) == pytest.approx(
        vars(counted(moved, code[:, order]).firing)
    )


def test_random_directions_score_at_chance():
    decoder = np.random.default_rng(1).standard_normal((120, 16))
    found, chance = direction_scores(decoder, TRUE), chance_directions(decoder, TRUE)
    for name in ("mean_max_cosine", "mcc", "uniqueness"):
        assert getattr(found, name) == pytest.approx(getattr(chance, name), abs=0.05)
    assert chance.mean_max_cosine < 0.75


def test_permuted_rows_score_at_their_chance():
    permuted = CODE[np.random.default_rng(2).permutation(len(CODE))]
    scores = counted(TRUE, permuted)
    assert vars(scores.firing) == pytest.approx(vars(scores.chance), abs=0.02)
    assert vars(scores.chance) == pytest.approx(vars(counted(TRUE, CODE).chance))
    assert scores.chance.f1 < 0.2


def test_precision_and_recall_are_those_of_each_latent_for_its_best_feature():
    true_code = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    code = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 0], [0, -1, 0]], np.float32)
    counts = CodeCounts(np.array([0, 0, 1]))
    counts.add(code, true_code)
    scores = counts.scores()
    assert scores.firing.precision == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores.firing.recall == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
    assert scores.firing.f1 == pytest.approx((1 / 2 + 2 / 5 + 0) / 3)
    assert scores.firing.accuracy == pytest.approx((2 / 4 + 1 / 4 + 3 / 4) / 3)
    assert (scores.l0, scores.true_l0, scores.dead) == (0.75, 1.0, 1)


def test_batches_add_up():
    counts = CodeCounts(best_features(TRUE, TRUE))
    noisy = CODE * (np.random.default_rng(3).random(CODE.shape) < 0.5)
    for first in range(0, 3000, 700):
        part = slice(first, first + 700)
        x = CODE[part] @ TRUE
        counts.add(noisy[part], CODE[part], x=x, reconstruction=noisy[part] @ TRUE)
    whole = counted(TRUE, noisy, x=CODE @ TRUE, reconstruction=noisy @ TRUE)
    assert counts.scores().firing == whole.firing
    assert counts.scores().shrinkage == pytest.approx(whole.shrinkage)


def test_shrinkage_is_the_mean_ratio_of_norms_without_empty_rows():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    counts = CodeCounts(np.array([0]))
    counts.add(np.ones((3, 1)), np.ones((3, 1)), x=x, reconstruction=0.5 * x)
    assert counts.scores().shrinkage == 0.5


def test_uniqueness_falls_where_latents_share_a_feature():
    twice = np.concatenate([TRUE[:5], TRUE[:5]])
    assert direction_scores(twice, TRUE).uniqueness == 0.5
    assert direction_scores(twice, TRUE).mcc < 1


def test_the_matching_is_one_to_one_where_the_largest_cosine_is_not():
    features = np.eye(3)[:2]
    decoder = np.array([[0.8, 0.6, 0.0], [0.5, 0.0, np.sqrt(0.75)]])
    found = direction_scores(decoder, features)
    assert found.mean_max_cosine == pytest.approx((0.8 + 0.6) / 2)
    assert found.mcc == pytest.approx((0.5 + 0.6) / 2)


@pytest.mark.parametrize(
    ("decoder", "features", "said"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "the decoder is 3 wide and the features 4"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "a matrix of finite numbers"),
        (np.ones((2, 3)), np.eye(3) * [1, 1, 0], "feature 2 is zero"),
        (np.ones((0, 3)), np.ones((2, 3)), "a matrix of finite numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(decoder, features, said):
    with pytest.raises(BadInput, match=said):
        direction_scores(decoder, features)


def test_codes_of_other_rows_or_latents_are_refused():
    counts = CodeCounts(np.array([0, 1]))
    with pytest.raises(BadInput, match="give both of the same rows"):
        counts.add(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(BadInput, match="the code has 3 latents"):
        counts.add(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(BadInput, match="there are no rows"):
        counts.scores()
