"""Each number by its definition, on held-out rows, paired row by row."""

import json
import random
import re
import shutil

import numpy as np
import pytest
import torch

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import doubts, names, newest
from rkstore.evaluation.evaluate import evaluate, write_results
from rkstore.evaluation.measure import Measure
from rkstore.evaluation.report.figures import comparison
from rkstore.evaluation.report.results import table
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.store.batches.plan import split_chunks
from rkstore.store.sites import Site
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"


class Fixed(torch.nn.Module):
    """A stand-in whose code and reconstruction a test decides."""

    def __init__(self, d_in, code, reconstruct):
        super().__init__()
        self.d_in, self.d_sae = d_in, code.shape[-1]
        site = (Site(SITE, d_in),)
        self.wiring = Wiring((Bank(self.d_sae, site, site),), centred=True)
        self.code, self.remade = code, reconstruct

    def encode(self, rows):
        return self.code.expand(len(rows[SITE]), -1)

    def restored(self, f, rows):
        assert len(f) == len(rows[SITE])
        return {SITE: self.remade(rows[SITE])}


def measured(x, reconstruct, code=None, batch=7):
    code = torch.ones(1) if code is None else code
    measure = Measure(Fixed(x.shape[1], code, reconstruct))
    for part in x.split(batch):
        measure.add(part)
    return measure.result("fixed", {SITE: 0.0})


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
        measure.dictionary.code = code
        measure.add(part)
    result = measure.result("fixed", {SITE: 0.0})
    assert result.l0 == pytest.approx((60 + 3 + 30) / 60)
    assert (result.dead, result.dense) == (1, 2)
    assert sum(result.density) == 4
    assert result.density[0] == 1


def test_rows_without_a_norm_have_neither_cosine_nor_ratio_and_are_counted(x):
    zeros = torch.zeros(8, 5)
    with_zeros = measured(torch.cat([x[:20], zeros, x[20:]]), lambda x: 0.5 * x + (x == 0))
    without = measured(x, lambda x: 0.5 * x)
    assert (with_zeros.zero_rows, without.zero_rows) == (8, 0)
    assert with_zeros.norm_ratio == pytest.approx(without.norm_ratio)
    assert with_zeros.cosine == pytest.approx(without.cosine)


def test_the_cosine_of_a_reconstruction_without_a_norm_is_0(x):
    assert measured(x, torch.zeros_like).cosine == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_never_holds_what_is_no_number(x, value, make_store, tmp_path):
    result = measured(x, lambda x: torch.full_like(x, value))
    write_results([result], make_store()[0], tmp_path / "results.json")

    def refuse(word):
        raise AssertionError(word)

    text = (tmp_path / "results.json").read_text()
    [row] = json.loads(text, parse_constant=refuse)["results"]
    assert row["fvu"] is None


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


def moved(checkpoint, root, change=lambda _: None):
    """The same checkpoint below another directory, its weights changed."""
    from rkstore.dictionaries import load_dictionary

    path = root / "sae" / "demo" / "x_20"
    path.mkdir(parents=True)
    dictionary, metadata = load_dictionary(checkpoint)
    change(dictionary)
    save_dictionary(dictionary, path, metadata)
    return path


def test_checkpoints_of_the_same_name_have_their_own_numbers_and_names(trained, tmp_path):
    store, _, paths = trained
    one = moved(paths[0], tmp_path / "A")
    two = moved(paths[0], tmp_path / "B", lambda d: d.b_dec.data.add_(1))
    settings = EvaluateSettings(store=str(store.root))
    together = evaluate([one, two, paths[1]], settings)
    assert [r.fvu for r in together] == [
        evaluate([p], settings)[0].fvu for p in (one, two, paths[1])
    ]
    assert together[0].fvu != together[1].fvu
    assert [r.name for r in together] == ["A/sae/demo/x_20", "B/sae/demo/x_20", paths[1].name]
    write_results(together, store, tmp_path / "results.json")
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [(row["name"], row["path"]) for row in rows] == [
        (result.name, str(path))
        for result, path in zip(together, (one, two, paths[1]), strict=True)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_name_is_the_shortest_end_that_no_other_path_has(tmp_path, seed):
    rng = random.Random(seed)
    tree = {tuple(rng.choices("ab", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 12))}
    paths = [tmp_path.joinpath(*parts) for parts in sorted(tree)]
    found = names(paths)
    assert len(set(found)) == len(paths)
    for path, name in zip(paths, found, strict=True):
        own = tuple(name.strip("/").split("/"))
        assert path.parts[-len(own) :] == own
        shorter = own[1:]
        others = [p for p in paths if p != path and p.parts[-len(shorter) :] == shorter]
        assert not shorter or others


@pytest.mark.parametrize("again", ["x", "./x", "y/../x", "link"])
def test_a_checkpoint_that_is_given_twice_is_refused(tmp_path, again):
    (tmp_path / "y").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(BadInput, match="is given twice"):
        names([tmp_path / "x", tmp_path / again])


MODEL = {"name": "gpt2", "weights_sha256": "a" * 64}
TEXT = {"dataset": "Salesforce/wikitext", "config": "wikitext-103-raw-v1", "split": "train"}
OTHER_WEIGHTS = {"weights_sha256": "b" * 64}
OURS = {
    "model_name": "gpt2",
    "context_size": 8,
    "prepend_bos": True,
    "rkstore": {"store_fingerprint": "another", "model": MODEL, "text": TEXT},
}
OLD = {"model_name": "gpt2", "rkstore": {"store_fingerprint": "another"}}
FOREIGN = {
    "model_name": "gpt2-small",
    "context_size": 128,
    "dataset_path": "Skylion007/openwebtext",
}


@pytest.fixture
def harvested_here(make_store):
    return make_store(
        rows=64, source={"model": MODEL, "text": TEXT, "tokens": {"prepend_bos": True}}
    )[0]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (OURS, ["trained on another store"]),
        (
            OURS | {"prepend_bos": False},
            ["another store", "trained with prepend_bos False, .* True"],
        ),
        (
            OURS | {"context_size": 4},
            ["another store", "trained with context_size 4, measured with 8"],
        ),
        (
            OURS | {"rkstore": OURS["rkstore"] | {"text": TEXT | {"split": "test"}}},
            ["trained on Salesforce/wikitext .* test, measured on Salesforce/wikitext .* train"],
        ),
        (
            OURS | {"rkstore": OURS["rkstore"] | {"text": {"files": [{"name": "a.txt"}] * 5}}},
            [r"trained on a\.txt, a\.txt, a\.txt and 2 more files, measured on"],
        ),
        (OLD, ["the checkpoint does not record .* unverified", "trained on another store"]),
        (
            FOREIGN,
            ["unverified", "trained on Skylion007/openwebtext, .*", "context_size 128, .* 8"],
        ),
        ({}, ["unverified"]),
        ({"rkstore": "of another program"}, ["unverified"]),
        ({"model_name": "openai-community/GPT2"}, ["unverified"]),
        (OURS | {"model_name": None}, ["another store"]),
    ],
)
def test_what_speaks_against_a_comparison_is_said(harvested_here, metadata, said):
    found = doubts("x", metadata, harvested_here)
    assert len(found) == len(said)
    for sentence, pattern in zip(found, said, strict=True):
        assert re.search(pattern, sentence)


def test_nothing_speaks_against_the_store_it_was_trained_on(harvested_here):
    run = {"store_fingerprint": harvested_here.manifest.fingerprint}
    assert doubts("x", {"model_name": "gpt2", "rkstore": run}, harvested_here) == []


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        (
            OURS | {"rkstore": OURS["rkstore"] | {"model": MODEL | OTHER_WEIGHTS}},
            r"gpt2 \(weights bbbbbbbbbbbb\), not on those of gpt2 \(weights aaaaaaaaaaaa\)",
        ),
        (
            OURS | {"rkstore": {"model": {"name": "tiny"} | OTHER_WEIGHTS}},
            r"tiny \(weights b+\), not on those of gpt2 \(weights a+\)",
        ),
        (
            OLD | {"model_name": "pythia-70m"},
            r"pythia-70m \(weights unknown\), not on those of gpt2",
        ),
        (FOREIGN | {"model_name": "gpt2-medium"}, r"gpt2-medium \(weights unknown\), not on"),
        ({"model_name": "mine"}, r"mine \(weights unknown\), not on those of gpt2"),
    ],
)
def test_a_store_of_another_model_is_refused_unless_that_is_asked_for(
    harvested_here, metadata, named
):
    with pytest.raises(BadInput, match=f"x was trained on activations of {named}.*any.model"):
        doubts("x", metadata, harvested_here)
    assert re.search(named, doubts("x", metadata, harvested_here, any_model=True)[0])


def test_a_store_that_records_no_weights_leaves_them_unverified(make_store):
    store, _ = make_store(rows=64, source={"model": {"name": "gpt2"}})
    assert doubts("x", OURS, store)[0].startswith("the store does not record the weights")


def test_doubts_are_in_the_results_and_on_stderr(trained, rkstore, make_store):
    _, _, paths = trained
    other, _ = make_store("other", rows=400, source={"model": {"name": "random"}})
    status, out, err = rkstore("evaluate", paths[0], "--store", other.root)
    assert status == 0
    assert "trained on another store" in err
    assert "trained on another store" not in out
    [row] = json.loads((paths[0].parents[3] / "results/evaluate/results.json").read_text())[
        "results"
    ]
    assert "trained on another store" in row["notes"]


def test_without_checkpoints_the_last_of_each_run_of_the_store_is_taken(
    trained, rkstore, make_store, tmp_path
):
    store, _, paths = trained
    other, _ = make_store("other", rows=400, source={"model": {"name": "random"}})
    earlier = paths[0].with_name(paths[0].name.replace("_60", "_40"))
    shutil.copytree(paths[0], earlier)
    config = json.loads((earlier / "cfg.json").read_text())
    config["metadata"]["rkstore"]["step"] = 40
    (earlier / "cfg.json").write_text(json.dumps(config))
    shutil.copytree(paths[0], paths[0].with_name(f".{paths[0].name}.writing"))
    assert newest(store, tmp_path / "checkpoints") == sorted(paths)
    status, _, err = rkstore("evaluate", "--store", store.root)
    assert status == 0
    first = err.splitlines()[0]
    assert "the last checkpoint of each run under checkpoints/ that trained on" in first
    assert all(path.name in first for path in paths)
    assert earlier.name not in first
    status, _, err = rkstore("evaluate", "--store", other.root)
    assert status == 2
    assert "no dictionary under checkpoints/ was trained on" in err


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
        line, *_ = [line for line in text.splitlines() if result.name in line]
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


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"identity": 3, "history": [4]}'])
def test_a_damaged_record_of_training_takes_nothing_from_the_numbers(
    trained, tmp_path, rkstore, content
):
    store, _, paths = trained
    copies = [shutil.copytree(path, tmp_path / "copies" / path.name) for path in paths]
    (copies[0] / "training.json").write_bytes(content)
    status, _, err = rkstore("evaluate", *copies, "--store", store.root, "--out", "out")
    assert (status, "Traceback" in err) == (0, False)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    expected = evaluate(paths, EvaluateSettings(store=str(store.root)))
    assert [one["fvu"] for one in found] == [one.fvu for one in expected]
    assert (tmp_path / "out" / "comparison.png").is_file()


def test_a_dictionary_of_another_width_is_refused_with_both_widths(trained, tmp_path):
    store, _, _ = trained
    dictionary = Dictionary.of_site(13, 4, select_named("relu", {}))
    save_dictionary(dictionary, tmp_path, {"hook_name": SITE})
    with pytest.raises(BadInput, match=f"13 wide, {SITE} in .* is 12 wide"):
        evaluate([tmp_path], EvaluateSettings(store=str(store.root)))
