"""Each number by its definition, on held-out rows, paired row by row."""

import json

import numpy as np
import pytest
import torch

from rkstore.batches import split_chunks
from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluate import Measure, evaluate, write_results
from rkstore.report import comparison, table
from rkstore.settings import EvaluateSettings, TrainSettings
from rkstore.train import train

SITE = "blocks.0.mlp.hook_post"


class Fixed(torch.nn.Module):
    """A stand-in whose code and reconstruction a test decides."""

    def __init__(self, d_in, code, reconstruct):
        super().__init__()
        self.d_in, self.d_sae = d_in, code.shape[-1]
        self.code, self.reconstruct, self.x = code, reconstruct, None

    def encode(self, x):
        self.x = x
        return self.code.expand(len(x), -1)

    def decode(self, _f):
        return self.reconstruct(self.x)


def measured(x, reconstruct, code=None, batch=7):
    code = torch.ones(1) if code is None else code
    measure = Measure(Fixed(x.shape[1], code, reconstruct))
    for part in x.split(batch):
        measure.add(part)
    return measure.result("fixed", SITE, 0.0)


@pytest.fixture
def x():
    """Rows far from zero, so that a wrong definition of variance shows."""
    generator = torch.Generator().manual_seed(0)
    return 100 + torch.randn(60, 5, generator=generator) * torch.tensor([1.0, 2, 3, 4, 5])


def test_the_identity_explains_everything(x):
    result = measured(x, lambda x: x)
    assert result.explained_variance == 1
    assert result.mse == 0
    assert result.cosine == pytest.approx(1)
    assert result.norm_ratio == pytest.approx(1)


def test_the_mean_explains_nothing_however_far_from_zero(x):
    mean = x.mean(dim=0)
    result = measured(x, lambda x: mean.expand_as(x))
    assert result.explained_variance == pytest.approx(0, abs=1e-9)


def test_mispaired_rows_score_far_below_zero(x):
    result = measured(x, lambda x: x.flip(0))
    assert result.explained_variance < -0.5


def test_fvu_does_not_depend_on_the_size_of_the_batches(x):
    scores = [measured(x, lambda x: 0.9 * x, batch=batch).fvu for batch in (1, 7, 60)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_mse_and_norm_ratio_follow_their_definitions(x):
    result = measured(x, lambda x: 0.5 * x)
    assert result.mse == pytest.approx((0.5 * x).square().sum(dim=1).mean().item(), rel=1e-6)
    assert result.norm_ratio == pytest.approx(0.5)


def test_l0_dead_and_dense_count_latents_above_zero(x):
    measure = Measure(Fixed(5, torch.zeros(4), lambda x: x))
    codes = torch.zeros(60, 4)
    codes[:, 0], codes[:3, 1], codes[:30, 2] = 1, 0.1, 5
    for part, code in zip(x.split(10), codes.split(10), strict=True):
        measure.dictionary.encode = lambda x, code=code: setattr(measure.dictionary, "x", x) or code
        measure.add(part)
    result = measure.result("fixed", SITE, 0.0)
    assert result.l0 == pytest.approx((60 + 3 + 30) / 60)
    assert (result.dead, result.dense) == (1, 2)
    assert sum(result.density) == 4
    assert result.density[0] == 1


def test_constant_rows_have_no_fvu():
    with pytest.raises(BadInput, match="constant over the held-out rows"):
        measured(torch.ones(20, 5), lambda x: x)


@pytest.fixture
def trained(make_store, tmp_path):
    """A store, and two checkpoints of one of its sites."""
    store, values = make_store(rows=400)
    paths = [
        train(
            TrainSettings(
                store=str(store.root),
                hook=SITE,
                d_sae=24,
                k=4,
                steps=60,
                batch_size=32,
                init=init,
                out=str(tmp_path / "checkpoints"),
            )
        )
        for init in ("random", "tied")
    ]
    return store, values, paths


def test_only_held_out_rows_are_used(trained):
    store, values, paths = trained
    [result] = evaluate(paths[:1], EvaluateSettings(store=str(store.root)))
    rows = np.concatenate([np.arange(*store.rows_of_chunk(c)) for c in split_chunks(store)[1]])
    from rkstore.dictionaries import load_dictionary

    dictionary, _ = load_dictionary(paths[0])
    x = torch.from_numpy(values[SITE][rows])
    with torch.no_grad():
        error = (dictionary(x) - x).double().square().sum()
    assert result.rows == len(rows)
    assert result.fvu == pytest.approx((error / (x - x.double().mean(0)).square().sum()).item())


def test_evaluating_together_gives_what_evaluating_alone_gives(trained):
    store, _, paths = trained
    settings = EvaluateSettings(store=str(store.root), batch_size=32)
    together = evaluate(paths, settings)
    alone = [evaluate([path], settings)[0] for path in paths]
    assert together == alone


def test_fewer_rows_can_be_asked_for(trained):
    store, _, paths = trained
    [result] = evaluate(paths[:1], EvaluateSettings(store=str(store.root), rows=10))
    assert result.rows == store.manifest.chunk_rows


def test_the_results_name_the_store_they_were_measured_on(trained, tmp_path):
    store, _, paths = trained
    results = evaluate(paths, EvaluateSettings(store=str(store.root)))
    write_results(results, store, tmp_path / "results.json")
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["store_fingerprint"] == store.manifest.fingerprint
    assert document["results"][0]["explained_variance"] == results[0].explained_variance


def test_the_table_says_what_the_results_say(trained):
    store, _, paths = trained
    results = evaluate(paths, EvaluateSettings(store=str(store.root)))
    text = table(results)
    for result in results:
        [line] = [line for line in text.splitlines() if result.name in line]
        assert f"{result.fvu:.4f}" in line
        assert f"{result.dead} (" in line
    assert f"{results[0].rows:,} tokens" in text


def test_the_same_results_give_the_same_picture(trained, tmp_path):
    store, _, paths = trained
    results = evaluate(paths, EvaluateSettings(store=str(store.root)))
    for name in ("one.png", "two.png"):
        comparison(results, paths, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_a_dictionary_of_another_width_is_refused_with_both_widths(trained, tmp_path):
    store, _, _ = trained
    dictionary = Dictionary(13, 4, select_named("relu", {}))
    save_dictionary(dictionary, tmp_path, {"hook_name": SITE})
    with pytest.raises(BadInput, match=f"13 wide, {SITE} in .* is 12 wide"):
        evaluate([tmp_path], EvaluateSettings(store=str(store.root)))


def test_a_dictionary_of_a_site_that_is_not_in_the_store_is_refused(trained, tmp_path):
    store, _, _ = trained
    save_dictionary(
        Dictionary(12, 4, select_named("relu", {})), tmp_path, {"hook_name": "blocks.7.mlp"}
    )
    with pytest.raises(BadInput, match=r"'blocks\.7\.mlp' is not in the store"):
        evaluate([tmp_path], EvaluateSettings(store=str(store.root)))
