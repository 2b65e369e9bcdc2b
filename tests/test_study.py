"""The study of inits: paired arms, exact lifetimes, and statistics that equal their twins."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from rkstore.dictionaries import Dictionary, select_named
from rkstore.errors import BadInput

PIPELINES = Path(__file__).parents[1] / "pipelines"


def load(name):
    if str(PIPELINES) not in sys.path:
        sys.path.insert(0, str(PIPELINES))
    return importlib.import_module(name)


paired, lifetimes = load("paired"), load("lifetimes")


@pytest.mark.parametrize("n", [2, 5, 8, 12])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    twin = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert paired.sign_flip_test(d) == pytest.approx(twin.pvalue)


def test_of_many_pairs_a_sample_of_patterns_says_nearly_the_same():
    d = np.random.default_rng(0).normal(0.5, 1, 30)
    normal = stats.ttest_1samp(d, 0).pvalue
    assert paired.sign_flip_test(d) == pytest.approx(normal, abs=0.01)


def test_holm_is_the_step_down_rule():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.5]) == [1.0, 1.0]


def test_the_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = paired.interval([generator.normal(1, 1, 40) for _ in range(3)], trial)
        covered += low <= 1 <= high
    assert 0.89 <= covered / 200 <= 0.99


def dictionary(kind: str, lowest: float = -12) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    made = Dictionary(8, 64, select_named(kind, {"k": 4, "l1": 0.0}))
    with torch.no_grad():
        made.W_enc.normal_(generator=generator)
        made.W_dec.normal_(generator=generator)
        # Some fire all the time, some hardly ever, some never.
        made.b_enc.copy_(torch.linspace(lowest, 4, 64))
    return made.eval()


@pytest.mark.parametrize("kind", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("size", [7, 100, 1000])
def test_the_first_token_of_each_latent_is_that_of_the_whole_code(kind, size):
    made = dictionary(kind)
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
    found = lifetimes.Lifetimes(made)
    for part in x.split(size):
        found.add(part)
    on = made.encode(x) > 0
    expected = torch.where(on.any(dim=0), on.int().argmax(dim=0), 1000)
    assert torch.equal(found.first, expected)
    for window in (1, 10, 500, 1000):
        assert torch.equal(found.dead(window), ~on[:window].any(dim=0))


def test_most_rows_need_not_be_encoded_in_full(monkeypatch):
    made, encoded = dictionary("topk", lowest=-6), []
    plain = made.encode
    monkeypatch.setattr(made, "encode", lambda x: encoded.append(len(x)) or plain(x))
    found = lifetimes.Lifetimes(made)
    for seed in range(50):
        found.add(torch.randn(100, 8, generator=torch.Generator().manual_seed(seed)))
    assert sum(encoded) < 4000


def test_a_window_beyond_the_rows_is_refused():
    found = lifetimes.Lifetimes(dictionary("topk"))
    found.add(torch.zeros(10, 8))
    with pytest.raises(BadInput, match="11 tokens"):
        found.dead(11)


@pytest.fixture
def settings(make_store, tmp_path):
    store, _ = make_store("train", rows=400)
    held_out, _ = make_store("held out", rows=216, seed=1)
    study = load("rkcnn_study")

    def make(**change):
        usual = {
            "store": str(store.root),
            "held_out": str(held_out.root),
            "layers": "0",
            "arms": ("random", "tied"),
            "seeds": 2,
            "windows": ("50", "200"),
            "fvu_rows": 100,
            "d_sae": 24,
            "k": 4,
            "steps": 5,
            "batch_size": 32,
            "out": str(tmp_path / "study.json"),
        }
        return study.StudySettings(**(usual | change))

    return make


def test_every_arm_of_every_seed_is_on_record(settings, tmp_path):
    study = load("rkcnn_study")
    document = study.study(settings())
    assert {(run["layer"], run["seed"], run["arm"]) for run in document["runs"]} == {
        (0, seed, arm) for seed in (0, 1) for arm in ("random", "tied")
    }
    assert json.loads((tmp_path / "study.json").read_text()) == document
    for run in document["runs"]:
        assert 24 >= run["dead"]["50"] >= run["dead"]["200"] >= 0
        assert 0 < run["l0"] <= 4


def test_a_study_goes_on_with_what_is_missing_and_comes_to_the_same(settings, tmp_path):
    study = load("rkcnn_study")
    whole = study.study(settings())
    (tmp_path / "study.json").unlink()
    study.study(settings(seeds=1, arms=("tied",)))
    parts = study.study(settings())
    key = lambda run: (run["layer"], run["seed"], run["arm"])  # noqa: E731
    assert sorted(parts["runs"], key=key) == sorted(whole["runs"], key=key)


def test_the_record_of_another_study_is_refused(settings):
    study = load("rkcnn_study")
    study.study(settings(seeds=1))
    with pytest.raises(BadInput, match="another study"):
        study.study(settings(steps=6))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ("tide",)}, "no 'tide'"),
        ({"windows": ("217",)}, "217 tokens"),
        ({"windows": ("many",)}, "numbers of tokens"),
        ({"layers": "7"}, "layers"),
    ],
)
def test_a_study_that_cannot_be_is_refused(settings, change, said):
    with pytest.raises(BadInput, match=said):
        load("rkcnn_study").study(settings(**change))
