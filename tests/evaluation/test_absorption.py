"""Absorption planted by hand: a child's latent writes its parent, whose own latent is silent then.

The features are those of a forest: a parent, eight rare children, and features outside the tree.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from rkstore.errors import BadInput
from rkstore.evaluation.latents.absorption import absorption, direction_of
from rkstore.evaluation.latents.probing import Balanced
from rkstore.planted.features import plant_features
from rkstore.planted.settings import PlantSettings

ROWS, PARENT, CHILDREN = 12_000, 0, np.arange(1, 9)
PLANTED = plant_features(
    PlantSettings(
        features=24,
        d_in=48,
        roots=1,
        branching=8,
        depth=1,
        p_max=0.4,
        p_min=0.012,
        zipf=8.0,
        correlation=0.0,
    )
)
CODE = PLANTED.codes(0, ROWS).astype(np.float64)
_, TRUE = PLANTED.at()
X = CODE @ TRUE.astype(np.float64)
CHILD = CODE[:, CHILDREN].any(axis=1)
LABELS = (CODE[:, PARENT] != 0).astype(np.int8)
TRAIN = np.arange(ROWS) % 4 > 0
BALANCED = Balanced.of("parent", LABELS, TRAIN, 0)
TOKENS = np.flatnonzero((LABELS == 1) & ~TRAIN)


def found(code, decoders, rows=BALANCED, tokens=TOKENS):
    centred = X - X[TRAIN].mean(axis=0)
    direction = direction_of("parent", rows, tokens, centred)
    return absorption("parent", rows, direction, csr_matrix(code), X, decoders)


def silenced():
    """The true code, but without the parent where one of its children fires."""
    code = CODE.copy()
    code[CHILD, PARENT] = 0
    return code


def absorbing():
    """Decoders of that code: what a child writes has its parent in it."""
    decoders = TRUE.astype(np.float64).copy()
    mean, _ = PLANTED.magnitudes
    decoders[CHILDREN] += (mean[PARENT] / mean[CHILDREN])[:, None] * decoders[PARENT]
    return decoders


def test_the_forest_is_what_the_tests_need():
    assert (PLANTED.forest.parent[CHILDREN] == PARENT).all()
    share = CHILD[LABELS == 1].mean()
    assert 0.1 < share < 0.4


def test_absorption_planted_by_hand_is_found():
    one = found(silenced(), absorbing())
    assert one.main == (PARENT,)
    assert one.silent == pytest.approx(CHILD[TOKENS].mean(), abs=0.02)
    assert one.absorbed > 0.9 * one.silent
    assert one.fraction == pytest.approx(one.absorbed, abs=0.02)
    # A third of the latents are children, so a permuted decoder is often another child's.
    assert one.absorbed_chance < 0.6 * one.absorbed
    assert {latent for latent, _ in one.absorbers} <= set(CHILDREN.tolist())


def test_it_is_not_found_in_the_truth():
    one = found(CODE, TRUE.astype(np.float64))
    assert one.main == (PARENT,)
    assert one.f1[0] == 1
    assert (one.silent, one.absorbed, one.absorbers) == (0, 0, ())
    assert one.fraction < 0.01


def test_a_silent_latent_that_nobody_replaces_is_not_absorbed():
    one = found(silenced(), TRUE.astype(np.float64))
    assert one.silent > 0.1
    assert one.absorbed < 0.1 * one.silent


def test_a_class_of_two_halves_is_split_and_not_absorbed():
    halves = np.zeros((ROWS, 25))
    halves[:, :24] = CODE
    other = np.random.default_rng(0).random(ROWS) < 0.5
    halves[:, 24] = np.where(other, CODE[:, PARENT], 0)
    halves[other, PARENT] = 0
    one = found(halves, np.concatenate([TRUE, TRUE[[PARENT]]]).astype(np.float64))
    assert set(one.main) == {PARENT, 24}
    assert one.f1[1] - one.f1[0] > 0.1
    assert one.absorbed == 0


def test_half_of_the_parent_in_the_child_is_a_fraction_and_no_whole_absorption():
    code = CODE.copy()
    code[CHILD, PARENT] *= 0.5
    decoders = TRUE.astype(np.float64).copy()
    mean, _ = PLANTED.magnitudes
    decoders[CHILDREN] += (0.5 * mean[PARENT] / mean[CHILDREN])[:, None] * decoders[PARENT]
    one = found(code, decoders)
    assert one.absorbed == 0
    assert one.fraction == pytest.approx(0.5 * CHILD[TOKENS].mean(), rel=0.3)


def test_the_share_that_is_absorbed_is_that_of_a_twin_in_numpy():
    code, decoders = silenced(), absorbing()
    centred = X - X[TRAIN].mean(axis=0)
    direction = direction_of("parent", BALANCED, TOKENS, centred)
    p = direction.vector
    cosines = decoders @ p / np.linalg.norm(decoders, axis=1)
    absorbed = []
    for row in direction.tokens:
        parts = code[row] * (decoders @ p)
        best = parts.argmax()
        whole = X[row] @ p
        silent = code[row, PARENT] == 0
        absorbed.append(silent and cosines[best] >= 0.025 and parts[best] >= 0.4 * whole > 0)
    assert found(code, decoders).absorbed == pytest.approx(np.mean(absorbed))


def test_a_class_without_a_direction_or_without_a_latent_is_refused():
    with pytest.raises(BadInput, match="has 0 held-out tokens that a probe"):
        found(CODE, TRUE.astype(np.float64), tokens=TOKENS[:0])
    nothing = np.zeros((ROWS, 24))
    with pytest.raises(BadInput, match="no latent fires more on parent"):
        found(nothing, TRUE.astype(np.float64))
