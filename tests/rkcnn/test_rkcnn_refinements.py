"""What the probe can do beyond the published method: other subsets, directions and rounds."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis, skew

from rkstore.errors import BadInput
from rkstore.rkcnn import DIRECTIONS, SCORES, SUBSETS, Moments, RkCNNProbe, RkCNNResult, basis_of
from rkstore.rkcnn.probe import REFINEMENTS
from rkstore.rkcnn.rotation import Rotation
from rkstore.rkcnn.view import View, Without, orthonormal


def rows(n: int = 300, d: int = 20) -> np.ndarray:
    """Skewed activations with a spread and a tail of their own in every dimension."""
    generator = np.random.default_rng(11)
    return (generator.gamma(np.linspace(0.2, 2, d), size=(n, d)) + 5).astype(np.float32)


def probe(x: np.ndarray | None = None, **settings: Any) -> RkCNNResult:
    x = rows() if x is None else x
    return RkCNNProbe(x.shape[1], **({"h": 50, "r": 8} | settings)).probe(x, np.arange(len(x)) % 3)


def directions(result: RkCNNResult) -> np.ndarray:
    assert result.top_directions is not None
    return result.top_directions.numpy()


def bases(result: RkCNNResult) -> list[np.ndarray]:
    return [basis_of(subset, 20) for subset in result.top_subsets.numpy()]


@pytest.mark.parametrize(
    ("subsets", "score", "kind"), list(itertools.product(SUBSETS, SCORES, DIRECTIONS))
)
def test_every_combination_finds_directions_inside_its_subsets(
    subsets: str, score: str, kind: str
) -> None:
    options = {"subsets": subsets, "score_method": score, "directions": kind}
    result, again = probe(**options, components=2), probe(**options, components=2)
    found = directions(result)
    assert found.shape == (16, 20)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    for i, basis in enumerate(bases(result)):
        inside = found[2 * i : 2 * i + 2] @ basis
        np.testing.assert_allclose(np.linalg.norm(inside, axis=1), 1, atol=1e-5)
    assert torch.equal(result.all_scores, again.all_scores)
    np.testing.assert_array_equal(found, directions(again))


@pytest.mark.parametrize("name", ["kurtosis", "variance_ratio", "max_activation"])
def test_scores_of_bases_are_those_of_the_rows_in_that_basis(name: str) -> None:
    result, x = probe(subsets="bases", score_method=name), rows().astype(np.float64)
    expected = {
        "kurtosis": lambda y: kurtosis(y).mean(),
        "variance_ratio": lambda y: y.var(axis=0).max() / y.var(axis=0).mean(),
        "max_activation": lambda y: np.abs(y).max(),
    }[name]
    scores = [expected(x @ basis) for basis in bases(result)]
    np.testing.assert_allclose(result.top_scores.numpy(), scores, rtol=1e-4)


def test_variances_of_bases_are_of_all_rows_and_their_shape_of_the_sample() -> None:
    x = rows(5000)
    full, part = (
        probe(x, subsets="bases", score_method="variance_ratio", sample_rows=n) for n in (5000, 50)
    )
    np.testing.assert_allclose(full.all_scores, part.all_scores, rtol=1e-5)


def test_principal_directions_of_bases_are_the_first_singular_vectors() -> None:
    result, x = probe(subsets="bases"), rows().astype(np.float64)
    for basis, direction in zip(bases(result), directions(result), strict=True):
        inside = (x - x.mean(axis=0)) @ basis
        first = basis @ np.linalg.svd(inside, full_matrices=False)[2][0]
        assert abs(first @ direction) == pytest.approx(1, abs=1e-5)


def test_a_rotation_of_the_rows_changes_scores_of_coordinates_and_hardly_those_of_bases() -> None:
    """All kurtosis is in one dimension, and after a rotation in none."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((8000, 16))
    x[:, 0] = generator.exponential(size=len(x))
    rotated = x @ np.linalg.qr(generator.standard_normal((16, 16)))[0]

    def mean(subsets: str, y: np.ndarray) -> float:
        options: dict[str, Any] = {"subsets": subsets, "sample_rows": len(y)}
        return float(probe(y.astype(np.float32), h=120, **options).all_scores.mean())

    assert mean("coordinates", x) > 3 * mean("coordinates", rotated)
    assert mean("bases", x) == pytest.approx(mean("bases", rotated), rel=0.2)


@pytest.mark.parametrize(
    ("score", "expected"), [("projection_kurtosis", kurtosis), ("projection_skewness", skew)]
)
def test_projection_scores_are_of_the_projection_on_the_direction(
    score: str, expected: Any
) -> None:
    result = probe(score_method=score)
    projections = rows().astype(np.float64) @ directions(result).T
    np.testing.assert_allclose(result.top_scores, expected(projections), rtol=1e-4)


def test_of_several_components_the_best_gives_the_score() -> None:
    result = probe(score_method="projection_kurtosis", components=3)
    projections = rows().astype(np.float64) @ directions(result).T
    best = kurtosis(projections).reshape(8, 3).max(axis=1)
    np.testing.assert_allclose(result.top_scores, best, rtol=1e-4)


def test_subsets_that_do_not_vary_have_no_projection_score() -> None:
    x = rows(d=6)
    x[:, :3] = 1
    result = probe(x, m=2, h=15, r=12, score_method="projection_kurtosis")
    assert result.all_scores.isnan().sum() == 3


def test_the_random_score_depends_on_nothing_but_the_seed() -> None:
    one, other, of_other_rows = (
        probe(x, score_method="random", seed=seed).all_scores
        for x, seed in ((rows(), 1), (rows(), 2), (-rows(), 1))
    )
    assert torch.equal(one, of_other_rows)
    assert not torch.equal(one, other)


def test_components_come_with_the_subset_they_are_from() -> None:
    result = probe(components=3)
    assert result.parents is not None
    assert result.parents.tolist() == [i for i in range(8) for _ in range(3)]
    one = probe()
    np.testing.assert_allclose(directions(result)[::3], directions(one), atol=1e-6)


def test_near_duplicates_are_left_out_and_the_better_is_kept() -> None:
    everything, apart = directions(probe(r=40)), probe(r=40, max_cosine=0.9)
    kept = directions(apart)
    assert 1 < len(kept) < 40
    cosines = np.abs(kept @ kept.T) - np.eye(len(kept))
    assert cosines.max() <= 0.9
    assert apart.parents is not None
    np.testing.assert_array_equal(kept, everything[apart.parents])
    assert apart.parents[0] == 0


def test_a_round_is_orthogonal_to_those_before_it() -> None:
    result = probe(rounds=2, r=5)
    found = directions(result)
    assert found.shape == (10, 20)
    assert result.top_subsets.shape == (10, 4)
    assert result.all_subsets.shape == (100, 4)
    np.testing.assert_allclose(found[:5] @ found[5:].T, 0, atol=1e-6)
    np.testing.assert_array_equal(found[:5], directions(probe(r=5)))


def test_a_round_scores_what_the_rounds_before_have_left() -> None:
    result, x = probe(rounds=2, r=5, score_method="variance_ratio"), rows().astype(np.float64)
    span = orthonormal(directions(result)[:5])
    variance = (x - x @ span @ span.T).var(axis=0)[result.all_subsets[50:].numpy()]
    expected = variance.max(axis=1) / variance.mean(axis=1)
    np.testing.assert_allclose(result.all_scores[50:], expected, rtol=1e-4)


def test_rounds_and_components_give_as_many_directions_as_are_asked_for() -> None:
    found = directions(probe(rounds=3, components=2, r=2, h=60, subsets="bases"))
    assert np.linalg.matrix_rank(found) == len(found) == 12


def test_rounds_end_where_nothing_is_left() -> None:
    with pytest.raises(BadInput, match=r"1 rounds span all 6 dimensions.* lower rounds=2"):
        probe(rows(d=6), m=2, h=15, r=15, rounds=2)


def test_rounds_need_directions() -> None:
    with pytest.raises(BadInput, match="rounds project out the directions found before"):
        RkCNNProbe(20, h=50, r=8, rounds=2).probe(rows(), compute_directions=False)


def test_bases_can_be_scored_without_directions() -> None:
    finder = RkCNNProbe(20, h=50, r=8, subsets="bases")
    result = finder.probe(rows(), compute_directions=False)
    assert result.top_directions is None
    assert torch.equal(result.all_scores, finder.probe(rows()).all_scores)


def test_refinements_are_described_where_they_are_used(tmp_path: Path) -> None:
    probe(subsets="bases", components=2).save(tmp_path)
    settings = json.loads((tmp_path / "probe.json").read_text())["settings"]
    assert {k: settings[k] for k in REFINEMENTS if k in settings} == {
        "subsets": "bases",
        "components": 2,
    }


def test_the_command_line_has_an_option_for_each(rkstore: Any, make_store: Any) -> None:
    store, _ = make_store(rows=400, sites={"blocks.0.mlp.hook_post": 12})
    words = ["--h", 30, "--r", 6, "--subsets", "partitions", "--score", "projection_negentropy"]
    words += ["--directions", "ica", "--components", 2, "--rounds", 1, "--max-cosine", 0.9]
    status, out, err = rkstore(
        "probe", "--store", store.root, "--layer", 0, *words, "--out", "found"
    )
    assert status == 0, err
    assert "kept 6 of 30 subsets of 3 dimensions" in out
    settings = json.loads(Path("found/probe.json").read_text())["settings"]
    assert {k: settings[k] for k in REFINEMENTS if k in settings} == {
        "subsets": "partitions",
        "directions": "ica",
        "components": 2,
        "max_cosine": 0.9,
    }


def test_whitening_is_a_flag_of_the_command_line(rkstore: Any, make_store: Any) -> None:
    store, _ = make_store(rows=400)
    words = ["--store", store.root, "--hook", "blocks.0.mlp.hook_post", "--h", 30, "--r", 6]
    status, _, err = rkstore("probe", *words, "--whiten", "--out", "found")
    assert status == 0, err
    assert json.loads(Path("found/probe.json").read_text())["settings"]["whiten"] is True


def test_a_view_through_a_map_has_the_moments_of_the_mapped_rows() -> None:
    x = rows()
    moments = Moments.of(x, comoment=True)
    turn = Rotation(20, 5)
    seen = View(moments, (x - moments.mean).astype(np.float32)).through(turn).moments
    mapped = Moments.of(turn.of(x.astype(np.float64)), comoment=True)  # type: ignore[arg-type]
    for name in ("mean", "m2", "m3", "m4"):
        expected = getattr(mapped, name)
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(getattr(seen, name), expected, atol=tolerance)
    np.testing.assert_allclose(seen.covariance, mapped.covariance, atol=1e-9)


def test_a_view_counts_what_was_taken_out_as_constant() -> None:
    moments = Moments.of(rows(), comoment=True)
    sample = (rows() - moments.mean).astype(np.float32)
    seen = View(moments, sample).through(Without(np.eye(20)[:, :2]))
    assert not seen.moments.m2[:2].any()
    assert not seen.moments.covariance[:2].any()
    assert (seen.moments.m2[2:] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subsets": "cliques"}, "unknown subsets 'cliques'"),
        ({"directions": "pls"}, "unknown directions 'pls'"),
        ({"components": 0}, "components is 0: it must be at least 1"),
        ({"components": 5}, "components is 5 and a subset has only m=4 dimensions"),
        ({"rounds": 0}, "rounds is 0: it must be at least 1"),
        ({"max_cosine": -0.1}, "max_cosine is -0.1: it must be at least 0"),
        ({"subsets": "bases", "m": 20, "r": 2}, "only 1 distinct subsets of 20 of 20"),
    ],
)
def test_refinements_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        probe(**settings)
