"""The probe as a whole: what it keeps, what it refuses, what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kurtosis

from rkstore.errors import BadInput
from rkstore.rkcnn import RkCNNProbe, RkCNNResult, random_subsets


def rows(n: int = 200, d: int = 20) -> np.ndarray:
    """Skewed activations with a spread and a tail of their own in every dimension."""
    generator = np.random.default_rng(11)
    return generator.gamma(np.linspace(0.2, 2, d), size=(n, d)).astype(np.float32)


def probe(**settings: Any) -> RkCNNProbe:
    return RkCNNProbe(**({"d_model": 20, "h": 50, "r": 8} | settings))


def test_shapes_and_types() -> None:
    result = probe(m=3).probe(torch.from_numpy(rows()))
    assert result.top_directions is not None
    found = {name: (tuple(t.shape), t.dtype) for name, t in vars(result).items() if "_" in name}
    assert result.parents is None
    assert found == {
        "top_subsets": ((8, 3), torch.int64),
        "top_scores": ((8,), torch.float32),
        "all_subsets": ((50, 3), torch.int64),
        "all_scores": ((50,), torch.float32),
        "top_directions": ((8, 20), torch.float32),
    }


def test_m_is_the_root_of_the_width_by_default() -> None:
    assert RkCNNProbe(768).m == 27
    assert RkCNNProbe(3072).m == 55


def test_scores_belong_to_their_subsets() -> None:
    x = rows()
    result = probe().probe(x)
    of_dimensions = kurtosis(x.astype(np.float64), axis=0)
    expected = of_dimensions[result.all_subsets.numpy()].mean(axis=1)
    np.testing.assert_allclose(result.all_scores.numpy(), expected, rtol=1e-5)


def test_the_best_subsets_are_kept_best_first() -> None:
    result = probe().probe(rows())
    order = result.all_scores.argsort(descending=True)[:8]
    assert torch.equal(result.top_subsets, result.all_subsets[order])
    assert torch.equal(result.top_scores, result.all_scores[order])


def test_directions_are_those_of_the_subsets_kept() -> None:
    result = probe().probe(rows())
    assert result.top_directions is not None
    support = [direction.nonzero().flatten() for direction in result.top_directions]
    assert torch.equal(torch.stack(support), result.top_subsets)


def test_directions_use_all_rows_and_not_the_sample() -> None:
    x = rows(n=500)
    result = probe(sample_rows=10).probe(x)
    assert result.top_directions is not None
    for subset, direction in zip(result.top_subsets, result.top_directions, strict=True):
        centred = x[:, subset].astype(np.float64) - x[:, subset].mean(axis=0, dtype=np.float64)
        first = np.linalg.svd(centred, full_matrices=False)[2][0]
        assert abs(first @ direction[subset].numpy()) == pytest.approx(1, abs=1e-6)


def test_directions_point_to_the_rare_large_values() -> None:
    for x in (rows(), -rows()):
        directions = probe().probe(x).top_directions
        assert directions is not None
        projections = (x - x.mean(axis=0)) @ directions.numpy().T
        assert ((projections**3).mean(axis=0) > 0).all()


def test_directions_may_be_left_out() -> None:
    with_them, without = probe().probe(rows()), probe().probe(rows(), compute_directions=False)
    assert without.top_directions is None
    assert torch.equal(without.top_subsets, with_them.top_subsets)


def test_top_k_are_the_first_subsets_and_scores() -> None:
    result = probe().probe(rows())
    subsets, scores = result.get_top_k(3)
    assert torch.equal(subsets, result.top_subsets[:3])
    assert torch.equal(scores, result.top_scores[:3])


def test_equal_scores_keep_the_order_of_the_draw() -> None:
    x = np.tile(rows(d=2), (1, 200))  # the even dimensions have the longer tail
    result = probe(d_model=400, m=1, h=400, r=300).probe(x)
    drawn = result.all_subsets.flatten()
    assert result.all_scores.unique().numel() == 2
    expected = torch.cat([drawn[drawn % 2 == 0], drawn[drawn % 2 == 1]])
    assert torch.equal(result.top_subsets.flatten(), expected[:300])


def test_subsets_kept_are_distinct_even_where_few_exist() -> None:
    result = RkCNNProbe(5, m=2, h=100, r=10).probe(rows(d=5))
    assert len(result.all_subsets) == 10
    assert len({tuple(subset) for subset in result.top_subsets.tolist()}) == 10


@pytest.mark.parametrize("score", ["kurtosis", "variance_ratio", "knn"])
def test_a_planted_subset_is_found(score: str) -> None:
    """Two clusters in dimensions 0 and 1 of 6 are what each score is there to see."""
    generator = np.random.default_rng(3)
    x = generator.standard_normal((400, 6)).astype(np.float32)
    labels = (np.arange(400) % 20 == 0).astype(np.int64)
    x[:, :2] += 10 * labels[:, None]
    x[:, 1] *= 3 if score == "variance_ratio" else 1
    result = RkCNNProbe(6, m=2, h=15, r=1, score_method=score).probe(x, labels)
    planted = result.all_subsets.eq(torch.tensor([0, 1])).all(dim=1).nonzero().item()
    if score == "variance_ratio":  # sees the dimension that stands out, not the pair
        assert 1 in result.top_subsets[0]
    else:
        assert result.all_scores[planted] == result.top_scores[0]


def test_subsets_without_a_score_come_last() -> None:
    x = rows(d=6)
    x[:, :3] = 1
    result = RkCNNProbe(6, m=2, h=15, r=12).probe(x)
    assert result.all_scores.isnan().sum() == 3
    assert not result.top_scores.isnan().any()


def test_the_seed_decides_the_subsets() -> None:
    one, same, other = (probe(seed=seed).probe(rows()) for seed in (1, 1, 2))
    assert torch.equal(one.all_subsets, same.all_subsets)
    assert not torch.equal(one.all_subsets, other.all_subsets)
    expected = random_subsets(20, 4, 50, np.random.default_rng(1))
    np.testing.assert_array_equal(one.all_subsets.numpy(), expected)


@pytest.mark.parametrize("score", ["kurtosis", "variance_ratio", "knn", "separation"])
def test_the_same_seed_gives_the_same_bytes(score: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        found = probe(score_method=score, sample_rows=100).probe(rows(), np.arange(200) % 3)
        found.save(tmp_path / name)
    for file in ("probe.safetensors", "probe.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def saved(tmp_path: Path, **settings: Any) -> tuple[RkCNNResult, Path]:
    result = probe(**settings).probe(rows())
    path = tmp_path / "results" / "probe"
    result.save(path)
    return result, path


def test_tensors_are_written_as_they_are(tmp_path: Path) -> None:
    result, path = saved(tmp_path)
    tensors = load_file(path / "probe.safetensors")
    assert len(tensors) == 5
    for name, tensor in tensors.items():
        assert torch.equal(tensor, getattr(result, name))


def test_directions_that_are_not_there_are_not_written(tmp_path: Path) -> None:
    probe().probe(rows(), compute_directions=False).save(tmp_path)
    assert "top_directions" not in load_file(tmp_path / "probe.safetensors")


def test_the_description_says_what_was_done(tmp_path: Path) -> None:
    result, path = saved(tmp_path, seed=5)
    described = json.loads((path / "probe.json").read_text())
    assert described["settings"] == {
        "d_model": 20,
        "m": 4,
        "h": 50,
        "r": 8,
        "score_method": "kurtosis",
        "k_neighbors": 5,
        "seed": 5,
        "sample_rows": 2000,
        "query_rows": None,
    }
    assert described["source"] == {"rows": 200, "labels": None}
    scores = described["scores"]
    assert (scores["subsets"], scores["kept"], scores["undefined"]) == (50, 8, 0)
    assert scores["highest"] == result.top_scores[0].item()
    assert scores["lowest_kept"] == result.top_scores[-1].item()
    assert scores["mean"] == pytest.approx(result.all_scores.mean().item(), rel=1e-5)


def test_undefined_scores_are_counted_in_the_description(tmp_path: Path) -> None:
    x = rows(d=6)
    x[:, :3] = 1
    RkCNNProbe(6, m=2, h=15, r=12).probe(x).save(tmp_path)
    assert json.loads((tmp_path / "probe.json").read_text())["scores"]["undefined"] == 3


def test_saving_again_replaces_and_leaves_nothing_besides(tmp_path: Path) -> None:
    _, path = saved(tmp_path, seed=1)
    before = (path / "probe.safetensors").read_bytes()
    saved(tmp_path, seed=2)
    assert (path / "probe.safetensors").read_bytes() != before
    assert sorted(file.name for file in path.iterdir()) == ["probe.json", "probe.safetensors"]


def test_a_result_is_not_written_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(BadInput, match="is a file: choose a directory"):
        probe().probe(rows()).save(file)
    assert file.read_text() == "kept"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 0}, "d_model is 0: it must be at least 1"),
        ({"m": 0}, "m is 0: it must be at least 1"),
        ({"h": 0}, "h is 0: it must be at least 1"),
        ({"r": 0}, "r is 0: it must be at least 1"),
        ({"k_neighbors": 0}, "k_neighbors is 0: it must be at least 1"),
        ({"sample_rows": 1}, "sample_rows is 1: it must be at least 2"),
        ({"query_rows": 0}, "query_rows is 0: it must be at least 1"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
        ({"m": 21}, "m is 21 and there are only 20 dimensions: choose m up to 20"),
        ({"r": 51}, "r is 51 and only h=50 subsets are drawn"),
        ({"d_model": 5, "m": 4}, "only 5 distinct subsets of 4 of 5 dimensions: choose r up to 5"),
        ({"score_method": "entropy"}, "unknown score 'entropy': choose one of kurtosis"),
        ({"device": "abacus"}, "device 'abacus' is not available"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        probe(**settings)


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(BadInput, match="are 7 wide and the probe expects 20"):
        probe().probe(rows(d=7))


def test_a_single_row_is_refused() -> None:
    with pytest.raises(BadInput, match="have 1 rows: give at least 2"):
        probe().probe(rows(n=1))


def test_knn_needs_more_rows_than_neighbours() -> None:
    with pytest.raises(BadInput, match="5 rows to compare and needs at least 6"):
        probe(score_method="knn").probe(rows(n=5))


def test_knn_needs_more_sampled_rows_than_neighbours() -> None:
    with pytest.raises(BadInput, match="raise sample_rows"):
        probe(score_method="knn", sample_rows=4).probe(rows())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused_by_place(value: float) -> None:
    x = rows(n=5000)
    x[3000, 12] = value
    with pytest.raises(BadInput, match=f"row 3000 .* {value} in dimension 12"):
        probe().probe(x)


def test_asking_all_rows_is_the_default_of_knn() -> None:
    finder, asking = probe(score_method="knn"), probe(score_method="knn", query_rows=200)
    assert torch.equal(finder.probe(rows()).all_scores, asking.probe(rows()).all_scores)


def test_fewer_rows_may_ask_and_the_seed_decides_which() -> None:
    one, same, other = (
        probe(d_model=20, m=20, h=1, r=1, score_method="knn", query_rows=50, seed=seed)
        .probe(rows())
        .all_scores
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_separation_without_labels_is_refused() -> None:
    with pytest.raises(BadInput, match="separation score needs labels"):
        probe(score_method="separation").probe(rows())


@pytest.mark.parametrize("score", ["kurtosis", "knn"])
@pytest.mark.parametrize("labels", [np.arange(199), np.zeros((200, 1)), [1, 2]])
def test_labels_of_the_wrong_length_are_refused(score: str, labels: Any) -> None:
    with pytest.raises(BadInput, match="the activations 200 rows: give one label a row"):
        probe(score_method=score).probe(rows(), labels)


@pytest.mark.parametrize("score", ["knn", "separation"])
def test_labels_of_one_class_are_refused(score: str) -> None:
    with pytest.raises(BadInput, match="have the same label"):
        probe(score_method=score).probe(rows(), np.full(200, 3))


def test_labels_may_be_words() -> None:
    words = np.array(["noun", "verb"])[np.arange(200) % 2]
    finder = probe(score_method="separation")
    by_word, by_number = finder.probe(rows(), words), finder.probe(rows(), np.arange(200) % 2)
    assert torch.equal(by_word.all_scores, by_number.all_scores)


def test_more_subsets_than_have_a_score_cannot_be_kept() -> None:
    x = rows(d=6)
    x[:, :3] = 1
    with pytest.raises(BadInput, match="r is 13 and only 12 of 15 subsets have a kurtosis score"):
        RkCNNProbe(6, m=2, h=15, r=13).probe(x)
