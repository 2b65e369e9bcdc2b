"""Directions: the first right singular vector of each centred subset, with a sign."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FastICA

from rkstore.errors import BadInput
from rkstore.rkcnn import DIRECTIONS, Moments, keep_apart, principal_directions, random_subsets
from rkstore.rkcnn.directions import apart, find_directions
from rkstore.rkcnn.directions.finding import BLOCK_SUBSETS
from rkstore.rkcnn.directions.ica import fast_ica
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import member_named, options_in


def rows(n: int = 400, d: int = 12) -> np.ndarray:
    """Skewed activations, each dimension with another variance."""
    generator = np.random.default_rng(1)
    return (generator.exponential(size=(n, d)) * np.linspace(1, 3, d)).astype(np.float32)


def covariance(x: np.ndarray) -> np.ndarray:
    return Moments.of(x, comoment=True).covariance


def subsets(d: int = 12, m: int = 4, h: int = 20) -> np.ndarray:
    return random_subsets(d, m, h, np.random.default_rng(2))


def skewness(x: np.ndarray, directions: np.ndarray) -> np.ndarray:
    projections = (x - x.mean(axis=0)).astype(np.float64) @ directions.T
    return (projections**3).mean(axis=0)


def test_directions_are_the_first_singular_vectors_up_to_sign() -> None:
    x, chosen = rows(), subsets()
    directions = principal_directions(covariance(x), chosen)
    for subset, direction in zip(chosen, directions, strict=True):
        centred = x[:, subset].astype(np.float64) - x[:, subset].mean(axis=0, dtype=np.float64)
        first = np.linalg.svd(centred, full_matrices=False)[2][0]
        assert abs(first @ direction[subset]) == pytest.approx(1, abs=1e-6)


def test_directions_are_unit_vectors_inside_their_subset() -> None:
    x, chosen = rows(), subsets()
    directions = principal_directions(covariance(x), chosen, x)
    assert directions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-6)
    outside = np.ones(directions.shape, bool)
    np.put_along_axis(outside, chosen, False, axis=1)
    assert not directions[outside].any()


@pytest.mark.parametrize("side", [1, -1])
def test_the_sign_follows_the_rare_large_values(side: int) -> None:
    x = side * rows()
    directions = principal_directions(covariance(x), subsets(), x)
    assert (skewness(x, directions) > 0).all()


def test_an_offset_of_the_rows_does_not_change_the_sign() -> None:
    x = rows()
    near = principal_directions(covariance(x), subsets(), x)
    far = principal_directions(covariance(x), subsets(), x - 1000)
    np.testing.assert_array_equal(near, far)


def test_without_rows_the_largest_entry_is_positive() -> None:
    directions = principal_directions(covariance(-rows()), subsets())
    largest = np.abs(directions).argmax(axis=1)
    assert (directions[np.arange(len(directions)), largest] > 0).all()


def test_where_the_projection_is_not_skewed_the_largest_entry_is_positive() -> None:
    x = np.array([[3, -1], [-3, 1], [1, 0], [-1, 0]], np.float32)
    (direction,) = principal_directions(covariance(x), np.array([[0, 1]]), x)
    assert direction[0] > 0 > direction[1]


def test_many_subsets_are_the_same_as_one_at_a_time() -> None:
    x, chosen = rows(), subsets(h=BLOCK_SUBSETS - 20)
    chosen = np.concatenate([chosen, chosen[:40]])
    together = principal_directions(covariance(x), chosen, x)
    alone = [principal_directions(covariance(x), chosen[i : i + 1], x)[0] for i in (0, 400, 531)]
    np.testing.assert_allclose(together[[0, 400, 531]], alone, atol=1e-6)


def test_a_partly_constant_subset_has_a_direction() -> None:
    x = rows()
    x[:, 3] = 2
    (direction,) = principal_directions(covariance(x), np.array([[3, 5]]), x)
    assert direction[5] == pytest.approx(1)
    assert direction[3] == 0


def test_a_constant_subset_is_refused_by_name() -> None:
    x = rows()
    x[:, [3, 7]] = 2
    with pytest.raises(BadInput, match="dimensions 3, 7 are all constant"):
        principal_directions(covariance(x), np.array([[1, 3], [3, 7]]))


def test_the_table_names_every_kind_and_the_command_line_knows_them() -> None:
    assert {name: kind.name for name, kind in DIRECTIONS.items()} == {n: n for n in DIRECTIONS}
    assert options_in(ProbeSettings)["directions"].choices == DIRECTIONS


def test_an_unknown_kind_is_refused_with_the_list() -> None:
    with pytest.raises(BadInput, match="'pls': choose one of principal, ica, mixing"):
        member_named("directions", DIRECTIONS, "pls", {})


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0, dtype=np.float64).astype(np.float32)


def find(name: str, x: np.ndarray, chosen: np.ndarray, **options: Any) -> np.ndarray:
    components = options.pop("components", 1)
    method = DIRECTIONS[name](**options)
    return find_directions(covariance(x), chosen, centred(x), method, components)


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|cosine| of each row with the row of the same number."""
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    return np.abs((found * unit).sum(axis=1))


@pytest.mark.parametrize("whiten", [False, True])
def test_several_principal_directions_are_those_of_scikit_learn(whiten: bool) -> None:
    x, chosen = rows(), subsets(h=5)
    found = find("principal", x, chosen, components=3, whiten=whiten).reshape(5, 3, -1)
    for subset, directions in zip(chosen, found, strict=True):
        wide = x[:, subset].astype(np.float64)
        scale = wide.std(axis=0) if whiten else 1.0
        expected = PCA(3).fit(wide / scale).components_ / scale
        np.testing.assert_allclose(cosines(directions[:, subset], expected), 1, atol=1e-6)


def test_whitened_principal_directions_do_not_depend_on_the_scale_of_dimensions() -> None:
    x, chosen, scale = rows(), subsets(), np.geomspace(0.01, 100, 12).astype(np.float32)
    plain = find("principal", x, chosen, whiten=True)
    scaled = find("principal", x * scale, chosen, whiten=True) * scale
    np.testing.assert_allclose(cosines(plain, scaled), 1, atol=1e-5)


def mixed(n: int = 2000, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first four dimensions are a mixture ``(4, 4)`` of independent sources."""
    generator = np.random.default_rng(3)
    sources = generator.exponential(size=(n, d)) * np.sign(generator.standard_normal((n, d)))
    mixture = generator.standard_normal((4, 4))
    sources[:, :4] = sources[:, :4] @ mixture
    return sources.astype(np.float32), mixture


def test_ica_finds_the_components_of_scikit_learn() -> None:
    x, _ = mixed()
    found = find("ica", x, np.array([[0, 1, 2, 3]]), components=4)[:, :4]
    fitted = FastICA(4, whiten="unit-variance", tol=1e-10, max_iter=1000, random_state=0)
    expected = fitted.fit(x[:, :4].astype(np.float64)).components_
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    # One after another is not all at once: they are the same but for what the sample leaves open.
    assert (np.abs(found @ expected.T).max(axis=1) > 0.995).all()


def test_ica_equals_scikit_learns_one_after_another_from_the_same_start() -> None:
    z = np.random.default_rng(4).laplace(size=(500, 5)) @ np.linspace(1, 2, 25).reshape(5, 5)
    z += np.random.default_rng(5).exponential(size=z.shape)
    z = PCA(whiten=True).fit_transform(z) * (500 / 499) ** 0.5
    found = fast_ica(torch.from_numpy(z), 5).numpy()
    starts = []
    for i in range(5):
        rest = z - z @ found[:i].T @ found[:i]
        fourth = (rest * (rest**2).sum(axis=1, keepdims=True)).T @ rest
        starts.append(np.linalg.eigh(fourth)[1][:, -1])
    fitted = FastICA(algorithm="deflation", whiten=False, w_init=np.array(starts), tol=1e-10).fit(z)
    np.testing.assert_allclose(cosines(found, fitted.components_), 1, atol=1e-6)


def test_ica_unmixes_independent_sources() -> None:
    x, mixture = mixed()
    found = find("ica", x, np.array([[0, 1, 2, 3]]), components=4)[:, :4]
    unmixing = np.linalg.inv(mixture).T
    unmixing /= np.linalg.norm(unmixing, axis=1, keepdims=True)
    assert sorted(np.abs(found @ unmixing.T).argmax(axis=1)) == [0, 1, 2, 3]
    assert (np.abs(found @ unmixing.T).max(axis=1) > 0.99).all()


def test_mixing_directions_are_the_columns_of_the_mixing_matrix() -> None:
    x, mixture = mixed()
    found = find("mixing", x, np.array([[0, 1, 2, 3]]), components=4)[:, :4]
    written = mixture / np.linalg.norm(mixture, axis=1, keepdims=True)
    assert sorted(np.abs(found @ written.T).argmax(axis=1)) == [0, 1, 2, 3]
    assert (np.abs(found @ written.T).max(axis=1) > 0.99).all()


def test_mixing_directions_are_the_covariance_times_those_of_ica() -> None:
    x, chosen = mixed()[0], subsets()
    ica, mixing = find("ica", x, chosen), find("mixing", x, chosen)
    expected = np.zeros_like(ica)
    for i, subset in enumerate(chosen):
        expected[i, subset] = covariance(x)[np.ix_(subset, subset)] @ ica[i, subset]
    np.testing.assert_allclose(cosines(mixing, expected), 1, atol=1e-6)


def test_one_ica_component_is_the_first_of_several() -> None:
    x, chosen = mixed()[0], np.array([[0, 1, 2, 3], [1, 2, 3, 9]])
    one, several = find("ica", x, chosen), find("ica", x, chosen, components=3)
    np.testing.assert_allclose(one, several[::3], atol=1e-6)


def test_ica_leaves_out_what_does_not_vary() -> None:
    x, _ = mixed()
    x[:, 5] = 1
    (direction,) = find("ica", x, np.array([[0, 5]]))
    assert abs(direction[0]) == pytest.approx(1)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_kind_gives_unit_vectors_on_the_side_of_the_rare_large_values(name: str) -> None:
    x, chosen = -rows(), subsets()
    found = find(name, x, chosen, components=2)
    assert found.shape == (40, 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (skewness(x, found) > 0).all()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_more_components_than_a_subset_varies_in_are_refused_by_name(name: str) -> None:
    x = rows()
    x[:, 3] = 2 * x[:, 1]
    with pytest.raises(BadInput, match="dimensions 1, 3 vary in only 1 directions"):
        find(name, x, np.array([[4, 5], [1, 3]]), components=2)


def test_ica_without_rows_is_refused() -> None:
    with pytest.raises(BadInput, match="ica directions need rows"):
        find_directions(covariance(rows()), subsets(), None, DIRECTIONS["ica"]())


def test_ica_with_no_more_rows_than_dimensions_is_refused() -> None:
    with pytest.raises(BadInput, match="ica has 4 rows for subsets of 4 dimensions"):
        find("ica", rows(4), subsets())


def plain_keep_apart(directions: np.ndarray, most: float) -> list[int]:
    kept: list[int] = []
    for i, direction in enumerate(directions):
        if all(abs(direction @ directions[j]) <= most for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("block", [1, 7, 256])
def test_of_near_duplicates_the_first_is_kept(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "BLOCK_DIRECTIONS", block)
    directions = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    kept = keep_apart(directions)
    assert kept.tolist() == plain_keep_apart(directions, 0.9)
    assert 3 < len(kept) < 40


def test_a_direction_and_its_opposite_are_near_duplicates() -> None:
    assert keep_apart(np.array([[1, 0], [-1, 0], [0, 1]], np.float32)).tolist() == [0, 2]


def test_at_cosine_one_every_direction_is_kept() -> None:
    assert keep_apart(np.ones((3, 1), np.float32), 1.0).tolist() == [0, 1, 2]
