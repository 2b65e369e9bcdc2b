"""The pipelines: every run is recorded, arms are paired, chance is shown with each result."""

import ast
import contextlib
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import click
import numpy as np
import pytest
import torch
import yaml
from matplotlib.lines import Line2D
from pictures import drawn, legible_texts

from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.record import Runs, as_json
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.rkcnn.settings import SCORES
from rkstore.settings import from_yaml, options_in
from rkstore.store.batches.kept import left_out
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.training import inits
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings

ROOT = Path(__file__).parents[1]
INITS = tuple(inits.INITS)
SETTINGS = {
    "phase1_toy": "Phase1Settings",
    "phase2_gpt2": "Phase2Settings",
    "multi_layer": "MultiLayerSettings",
    "sweep": "SweepSettings",
}
QUICK = ["--d-sae", 96, "--k", 4, "--steps", 10, "--batch-size", 32, "--warmup", 2]


@pytest.fixture(autouse=True)
def _pipelines_are_importable(monkeypatch):
    """As they are for a script, whose own directory comes first."""
    monkeypatch.syspath_prepend(ROOT / "pipelines")


@pytest.fixture
def pipeline(monkeypatch, capsys, tmp_path):
    """Call it with a pipeline's name and words; returns its JSON, what it printed, and its errors.

    It runs in an empty directory, and writes to ``out`` there.
    """
    monkeypatch.chdir(tmp_path)

    def run(name, *words, out="out"):
        module, results = importlib.import_module(name), importlib.import_module("results")
        given = [name, *map(str, words), "--out", out]
        monkeypatch.setattr(sys, "argv", given)
        with contextlib.suppress(SystemExit):
            results.start(module.main)
        captured = capsys.readouterr()
        file = next(Path(out).rglob(f"{name}.json"), None)
        return json.loads(file.read_text()) if file else None, captured.out, captured.err

    return run


def options(name, **given):
    """The settings of a pipeline."""
    return getattr(importlib.import_module(name), SETTINGS[name])(**given)


def keys(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def same(rows, name):
    """The one value that all rows have."""
    [value] = {row[name] for row in rows}
    return value


# --- phase 1


@pytest.fixture(scope="module")
def phase1():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "pipelines")
        module = importlib.import_module("phase1_toy")
        path = ROOT / "configs" / "phase1_toy.yaml"
        return module.study(
            from_yaml(module.Phase1Settings, path, {"controls": 2, "draws": 2000, "toys": 2})
        )


def runs_of(document, name):
    return [run for run in document["runs"] if run["of"] == name]


def test_the_toy_model_is_the_published_one_to_the_digit(phase1):
    assert phase1["overlap"]["mean"] == pytest.approx(0.41248923540115356, rel=1e-6)
    assert phase1["overlap"]["max"] == pytest.approx(0.9344473481178284, rel=1e-6)


def test_subsets_drawn_with_repetition_give_the_published_numbers(phase1):
    [run] = runs_of(phase1, "as published")
    assert run["top"] == pytest.approx(0.8503199815750122)
    assert run["mean"] == pytest.approx(0.824171245098114)
    assert run["variation"] == pytest.approx(0.014623806811869144)
    assert run["scores"][:10] == pytest.approx([0.85032] * 8 + [0.83176] * 2)
    found = phase1["recovery"]["as published"]
    assert (found["directions"], found["found"]) == (2, pytest.approx(0.3))


def test_subsets_without_repetition_are_all_there_are(phase1):
    [run] = runs_of(phase1, "found")
    assert len(run["scores"]) == 10
    assert phase1["recovery"]["distinct subsets"]["directions"] == 10


def test_phase_1_says_what_chance_would_pass(phase1):
    chance = {key: one.get("chance") for key, one in phase1["criteria"].items()}
    assert chance["recovery"]["random directions"]["passes"] > 0.99
    assert chance["top_score"]["random basis"]["passes"] == 1
    assert chance["top_score"]["labels shuffled"]["passes"] == 0
    assert chance["variation"]["labels shuffled"]["passes"] == 1
    assert len(runs_of(phase1, "random basis")) == len(runs_of(phase1, "labels shuffled")) == 2


def test_other_toys_are_other_draws_of_the_same(phase1):
    assert [row["seed"] for row in phase1["other_toys"]] == [43, 44]
    for row in phase1["other_toys"]:
        assert 0.5 < row["distinct subsets"]["chance"] < 0.9


def test_shuffled_labels_score_as_often_as_two_labels_agree(phase1):
    toy = importlib.import_module("toy").make_toy(10, 5, 0.1, 5000, 42)
    share = torch.unique(toy.labels, return_counts=True)[1] / len(toy.labels)
    for run in runs_of(phase1, "labels shuffled"):
        # Loosely: rows of no feature lie in one point, and share whichever neighbours are taken.
        assert run["mean"] == pytest.approx(share.square().sum().item(), abs=0.05)


def test_phase_1_runs_from_the_command_line(pipeline):
    small = [
        "--n-samples",
        300,
        "--controls",
        1,
        "--toys",
        1,
        "--draws",
        100,
        "--score-method",
        "kurtosis",
    ]
    document, printed, _ = pipeline("phase1_toy", *small)
    assert (
        document["criteria"]["recovery"]["found"]
        == document["recovery"]["distinct subsets"]["found"]
    )
    assert "random directions" in printed
    assert Path("out/phase1_toy.png").is_file()


def test_a_random_basis_is_orthonormal():
    basis = importlib.import_module("toy").random_basis(5, np.random.default_rng(0))
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-12)


# --- arms


@pytest.fixture
def arms(harvested):
    """The settings that the arms of one layer are trained with, by init."""
    chosen = options(
        "phase2_gpt2",
        store=str(harvested.root),
        layer=1,
        d_sae=96,
        k=4,
        arms=("random", "datapoint", "rkcnn", "rkcnn-decoder"),
        datapoint_share=0.0,
        init_scale="none",
        rkcnn_fraction=0.25,
        rkcnn_h=20,
    )
    found = importlib.import_module("arms").arms_of(chosen, harvested, 1, 42)
    return {one.init: one for one in found}


def test_arms_differ_in_their_init_alone(arms):
    for one in arms.values():
        different = {k for k, v in vars(one).items() if v != vars(arms["random"])[k]}
        assert different <= {"init"}


def test_arms_begin_alike_outside_the_mined_latents(arms):
    begun = {name: prepare(one).dictionary for name, one in arms.items()}
    mined = {
        name: importlib.import_module("arms").mined_latents(one, 96) for name, one in arms.items()
    }
    assert mined == {"random": 0, "datapoint": 0, "rkcnn": 24, "rkcnn-decoder": 20}
    for name, dictionary in begun.items():
        others = slice(mined[name], None)
        torch.testing.assert_close(dictionary.W_dec[others], begun["random"].W_dec[others])
        assert (
            not mined[name] or not (dictionary.W_dec == begun["random"].W_dec)[: mined[name]].any()
        )
    assert torch.equal(begun["rkcnn"].W_enc[:, 24:], begun["datapoint"].W_enc[:, 24:])
    assert torch.equal(begun["rkcnn-decoder"].W_enc, begun["random"].W_enc)


def test_arms_see_the_same_rows_in_the_same_order(arms):
    runs = [prepare(one) for one in arms.values()]
    [first, *others] = [np.concatenate(list(run.plan.batches(0))) for run in runs]
    for order in others:
        np.testing.assert_array_equal(order, first)


# --- the rows that are read

READERS = ("read_rows", "plan_batches", "StoreSite", "Reading")
READING = sorted(
    path
    for path in (ROOT / "pipelines").glob("*.py")
    if any(name in path.read_text("utf-8") for name in READERS)
)


@pytest.mark.parametrize("path", READING, ids=lambda p: p.stem)
def test_a_pipeline_that_reads_rows_says_which_it_passes_over(path):
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) in READERS:
            reader = importlib.import_module(path.stem).__dict__[call.func.id]
            names = list(inspect.signature(reader).parameters)[: len(call.args)]
            given = {*names, *(word.arg for word in call.keywords)}
            assert "left_out" in given, ast.unparse(call)


@pytest.mark.parametrize("name", ["phase2_gpt2", "multi_layer", "sweep", "rkcnn_study"])
def test_a_pipeline_that_trains_leaves_out_rows_as_train_does(name):
    kind = getattr(importlib.import_module(name), SETTINGS.get(name, "StudySettings"))
    usual = TrainSettings()
    assert kind().special_tokens == usual.special_tokens
    assert kind().max_norm == usual.max_norm


@pytest.mark.parametrize("words", [[], ["--special-tokens"], ["--max-norm", 1.0]])
def test_what_a_pipeline_counts_is_over_the_rows_that_are_kept(pipeline, harvested, words):
    document, _, _ = pipeline(
        "multi_layer", "--store", harvested.root, "--layers", "1", *QUICK, *words
    )
    wishes = {key: document["settings"][key] for key in ("special_tokens", "max_norm")}
    train_chunks, held_out = split_chunks(harvested)
    site = harvested.site(1, "mlp.hook_post")
    seen, unseen = (left_out(harvested, site, part, **wishes) for part in (train_chunks, held_out))
    order = np.concatenate(
        list(plan_batches(harvested, train_chunks, 32, 42, left_out=seen).batches(0))
    )
    kept = np.concatenate([unseen.kept(*harvested.rows_of_chunk(c)) for c in held_out])
    digest = importlib.import_module("arms").digest
    assert same(document["runs"], "rows") == len(kept)
    assert same(document["runs"], "left_out") == len(unseen.rows)
    assert (len(unseen.rows) == 0) == (words == ["--special-tokens"])
    assert same(document["runs"], "held_out_rows") == digest(kept)
    assert same(document["runs"], "order_of_rows") == digest(order)


# --- phase 2


def test_a_dry_run_goes_the_whole_way(pipeline):
    document, printed, _ = pipeline("phase2_gpt2", "--dry-run")
    runs = document["runs"]
    assert keys(runs, "init", "seed") == [("random", 42), ("datapoint", 42), ("rkcnn", 42)]
    for name in ("order_of_rows", "held_out_rows", "rows", "d_sae", "hook_name", "codec_fvu"):
        same(runs, name)
    assert same(runs, "hook_name") == "blocks.8.mlp.hook_post"
    assert [row["mined"] for row in runs] == [0, 0, 128]
    assert document["settings"]["store_model"] == "demo"
    pairs = [("datapoint", "random"), ("rkcnn", "random"), ("rkcnn", "datapoint")]
    assert keys(document["summary"]["compared"], "arm", "against") == pairs
    assert document["published"]["arms"]["rkcnn"]["dead"] == 43
    assert "published rkcnn" in printed
    assert Path("out/dry_run/phase2_gpt2.png").is_file()


def test_phase_2_leaves_checkpoints_and_does_not_repeat_itself(pipeline, harvested, monkeypatch):
    words = ["--store", harvested.root, "--layer", 1, *QUICK, "--checkpoint-every", 5]
    document, _, _ = pipeline("phase2_gpt2", *words)
    last = {row["name"] for row in document["runs"]}
    before = {f"{name.removesuffix('_10')}_5" for name in last}
    directories = [path for path in Path("out/checkpoints/sae/tiny").iterdir() if path.is_dir()]
    assert {path.name for path in directories} == last | before
    monkeypatch.setattr("arms.run_arms", None)
    assert pipeline("phase2_gpt2", *words)[0] == document


def test_phase_2_measures_as_rkstore_evaluate_does(pipeline, harvested):
    document, _, _ = pipeline("phase2_gpt2", "--store", harvested.root, "--layer", 1, *QUICK)
    paths = [Path("out/checkpoints/sae/tiny") / row["name"] for row in document["runs"]]
    settings = EvaluateSettings(store=str(harvested.root), chance=False)
    for row, found in zip(document["runs"], evaluate(paths, settings), strict=True):
        known = json.loads(json.dumps(found.as_dict()))
        del known["path"]
        assert {key: row[key] for key in known} == known
        assert row["dead"] == row["dead_mined"] + row["dead_others"]


def test_another_seed_is_another_pair(pipeline, harvested):
    words = ["--store", harvested.root, "--layer", 1, *QUICK]
    one, _, _ = pipeline("phase2_gpt2", *words)
    two, printed, _ = pipeline("phase2_gpt2", *words, "--seeds", 2)
    assert two["runs"][:3] == one["runs"]
    assert len({row["order_of_rows"] for row in two["runs"]}) == 2
    assert same(two["runs"], "held_out_rows") == same(one["runs"], "held_out_rows")
    assert one["summary"]["noise"]["dead"] is None
    dead = [row["dead"] for row in two["runs"] if row["init"] == "random"]
    assert two["summary"]["noise"]["dead"] == pytest.approx(np.std(dead, ddof=1))
    assert "Between seeds" in printed


# --- all layers


def test_every_layer_is_compared_on_one_store(pipeline, harvested):
    words = ["--store", harvested.root, "--layers", "0,2", *QUICK]
    document, printed, _ = pipeline("multi_layer", *words)
    runs = document["runs"]
    inits = ("random", "datapoint", "rkcnn")
    assert keys(runs, "layer", "init") == [(layer, init) for layer in (0, 2) for init in inits]
    same(runs, "order_of_rows")
    same(runs, "held_out_rows")
    assert not list(Path("out/checkpoints").rglob("*.safetensors"))
    dead = {(row["layer"], row["init"]): row["dead"] for row in runs}
    compared = document["summary"]["compared"]
    assert len(compared) == 3
    for pair in compared:
        assert pair["dead"] == [dead[i, pair["arm"]] - dead[i, pair["against"]] for i in (0, 2)]
    assert document["published"]["layers"]["11"]["dead"] == [17401, 17112]
    assert "22674 → 22222" in printed
    assert Path("out/multi_layer.png").is_file()


def test_layers_can_be_added(pipeline, harvested):
    words = ["--store", harvested.root, *QUICK, "--arms", "random", "--arms", "rkcnn"]
    one, _, _ = pipeline("multi_layer", *words, "--layers", "1")
    every, _, _ = pipeline("multi_layer", *words)
    alone, _, _ = pipeline("multi_layer", *words, "--layers", "0", out="alone")
    assert every["runs"][:2] == one["runs"]
    assert [row for row in every["runs"] if row["layer"] == 0] == alone["runs"]


# --- the sweep

SMALL_GRID = ["--h", "8,16", "--fraction", 0.5, "--score", "kurtosis,knn", "--l1", 0.001]
SWEEP = ["--layer", 1, "--d-sae", 96, "--steps", 10, "--batch-size", 32, "--seeds", 2, *SMALL_GRID]


def test_a_sweep_records_every_run(pipeline, harvested):
    document, printed, _ = pipeline("sweep", "--store", harvested.root, *SWEEP)
    baselines = [row for row in document["runs"] if row["init"] == "random"]
    assert keys(baselines, "l1", "seed") == [(0.001, 42), (0.001, 43)]
    swept = [row for row in document["runs"] if row["init"] == "rkcnn"]
    assert keys(swept, "h", "score", "mined") == [
        (8, "kurtosis", 4), (8, "knn", 4), (16, "kurtosis", 8), (16, "knn", 8)
    ]  # fmt: skip
    assert same(swept, "order_of_rows") == baselines[0]["order_of_rows"]
    assert same(document["runs"], "held_out_rows")
    pairs = document["summary"]["pairs"]
    assert [pair["dead"] for pair in pairs] == [
        [baselines[0]["dead"], row["dead"]] for row in swept
    ]
    noise = np.std([row["dead"] for row in baselines], ddof=1)
    assert document["summary"]["noise"]["sd"] == pytest.approx(noise)
    assert "21262 ± 943" in printed


def test_a_stopped_sweep_goes_on_to_the_same_results(pipeline, harvested, monkeypatch):
    words = ["--store", harvested.root, *SWEEP]
    through, _, _ = pipeline("sweep", *words, out="through")
    real, made = importlib.import_module("sweep").run_arms, []

    def stopping(chosen, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(chosen[0].name)
        return real(chosen, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("sweep.run_arms", stopping)
        partial, _, said = pipeline("sweep", *words)
        assert "run the same command again" in said
        assert len(partial["runs"]) == 3
    assert pipeline("sweep", *words)[0] == through


def test_the_default_sweep_is_the_published_grid():
    chosen = from_yaml(options("sweep").__class__, ROOT / "configs" / "sweep.yaml", {})
    assert len(chosen.grid()) == 54


def test_the_published_l1_is_a_mean_over_latents(harvested):
    module = importlib.import_module("sweep")
    chosen = options("sweep", store=str(harvested.root), layer=1, expansion=8.0)
    x, w = torch.randn(7, 64), torch.randn(7, 512).relu()
    trained = module.training(chosen, harvested, {"l1": 0.005}, "random", 42)
    published = x.square().mean() + 0.005 * w.mean()
    ours = x.square().sum(dim=1).mean() + trained.l1 * w.sum(dim=1).mean()
    torch.testing.assert_close(ours, 64 * published)
    assert trained.norm == "none"


def test_as_published_every_subset_is_kept_and_as_swept_a_share_is():
    module = importlib.import_module("sweep")
    for point in options("sweep").grid():
        kept = {
            init: module.mining(init, point, d_sae=24576) for init in ("rkcnn", "rkcnn-decoder")
        }
        swept = kept["rkcnn"]
        assert round(24576 * swept["rkcnn_fraction"]) == round(point["h"] * point["fraction"])
        assert swept["rkcnn_oversample"] == pytest.approx(1 / point["fraction"])
        published = kept["rkcnn-decoder"]
        assert published["rkcnn_h"] < published["rkcnn_fraction"] * 24576


# --- configurations and failures


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_names_its_pipeline_and_is_valid_for_it(name):
    path = ROOT / "configs" / f"{name}.yaml"
    text = path.read_text("utf-8")
    assert set(re.findall(rf"python pipelines/(\w+)\.py --config configs/{path.name}", text)) == {
        name
    }
    chosen = from_yaml(type(options(name)), path, {})
    for key, value in yaml.safe_load(text).items():
        found = getattr(chosen, key)
        assert (list(found) if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.py")), ids=lambda p: p.stem)
def test_every_pipeline_is_a_command_that_refuses_an_option_given_twice(path):
    for value in vars(importlib.import_module(path.stem)).values():
        assert isinstance(value, Command) or not isinstance(value, click.Command)


# Text of a pipeline's options that is no path.
NO_PATHS = {
    *("layers", "arms", "windows", "hook", "dataset_config", "device"),
    *("baseline", "init", "h", "fraction", "score", "l1"),
}


@pytest.mark.parametrize("name", [*SETTINGS, "rkcnn_study"])
def test_every_text_of_a_pipeline_is_a_path_or_known_not_to_be(name):
    kind = getattr(importlib.import_module(name), SETTINGS.get(name, "StudySettings"))
    for spec in options_in(kind).values():
        if spec.kind is str and not spec.choices:
            assert spec.path == (spec.name not in NO_PATHS), spec.name


def test_training_options_are_those_of_rkstore_train():
    known = set(vars(TrainSettings()))
    for name in ("phase2_gpt2", "multi_layer"):
        own = {key for key in vars(options(name)) if key.startswith("rkcnn_")}
        assert own <= known


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("phase1_toy", ["--m", 9], "m is 9"),
        ("phase1_toy", ["--r", 11], "only 10 distinct subsets"),
        ("phase2_gpt2", ["--arms", "random"], "at least two"),
        ("phase2_gpt2", ["--arms", "random", "--arms", "magic"], "--init is 'magic'"),
        ("phase2_gpt2", ["--store", "nowhere"], "nowhere"),
        ("phase2_gpt2", ["--model", "nobody/nothing"], "nobody/nothing"),
        ("multi_layer", ["--layers", "0-9"], "whose layers are 0-2"),
        ("multi_layer", ["--hook", "hook_q"], "--hook hook_q is not in the store"),
        ("sweep", ["--layer", 1, "--h", "many"], "--h is 'many'"),
        ("sweep", ["--layer", 1, "--score", "magic"], "--rkcnn-score is 'magic'"),
        ("sweep", ["--layer", 1, "--h", 1, "--fraction", 0.1], "it must be from 1"),
        ("sweep", ["--dictionary", "topk"], "--l1 has no effect"),
        ("sweep", ["--tokens", 512], "--tokens has no effect"),
        ("multi_layer", ["--model", "demo", "--store", "stores/demo"], "--model has no effect"),
        ("phase2_gpt2", ["--dry-run", "--steps", 5], "--dry-run has its own"),
    ],
)
def test_a_pipeline_fails_in_one_sentence(pipeline, harvested, name, words, sentence):
    own = name == "phase1_toy" or {"--store", "--model"} & set(words)
    given = [] if own else ["--store", harvested.root]
    document, printed, said = pipeline(name, *given, *words)
    assert document is None
    assert not printed
    assert said.startswith(f"{name}: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_runs_with_other_settings_are_not_added_to(pipeline, harvested):
    words = [
        "--store",
        harvested.root,
        "--layers",
        "0",
        "--arms",
        "random",
        "--arms",
        "tied",
        *QUICK,
    ]
    document, _, _ = pipeline("multi_layer", *words)
    after, _, said = pipeline("multi_layer", *words, "--lr", 0.5)
    assert "lr was 0.001, is 0.5" in said
    assert after == document


# --- what they write


COMMANDS = sorted(
    path.stem for path in (ROOT / "pipelines").glob("*.py") if "@click.command" in path.read_text()
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_pipeline_takes_the_place_to_write_to(name):
    command = importlib.import_module(name).main
    assert "out" in {option.name for option in command.params}


def test_a_number_that_is_none_is_never_written():
    with pytest.raises(ValueError, match="JSON"):
        as_json({"fvu": float("nan")})


# --- pictures


def runs_with(rows):
    return Runs(Path("nowhere.json"), {}, rows)


def made_up(layer, seed, init, points, dead):
    """A run as phase 2 and the study of all layers record it."""
    steps = [20 * point for point in range(1, points + 1)]
    i = list(INITS).index(init)
    return {"layer": layer, "seed": seed, "init": init, "hook_name": "blocks.8.mlp.hook_post"} | {
        "dead_share": dead * i / 100,
        "explained_variance": 0.5 - 0.2 * i,
        "history": {"step": steps, "fvu": [1 / step + 0.1 * i for step in steps]},
    }


@pytest.mark.parametrize("dead", [0, 5])
@pytest.mark.parametrize("points", [1, 2, 50])
@pytest.mark.parametrize("arms", [list(INITS), list(INITS)[:2]])
def test_the_picture_of_phase_2_can_be_read_and_has_every_curve(arms, points, dead):
    chosen = options("phase2_gpt2", arms=arms)
    rows = [made_up(8, seed, arm, points, dead) for seed in (42, 43) for arm in arms]
    figure = importlib.import_module("phase2_gpt2").figure(runs_with(rows), chosen)
    assert set(arms) <= set(legible_texts(figure))
    training = figure.axes[0]
    shown = drawn(figure, Line2D)
    curves = [line for line in training.lines if line in shown]
    assert len(curves) == len(rows)
    assert all(len(line.get_xdata()) > 1 or line.get_marker() == "o" for line in curves)


def test_the_curve_of_a_run_ends_where_the_run_does(tmp_path):
    arms = importlib.import_module("arms")
    for length in (1, 2, 99, 1234):
        history = [{"step": step, "fvu": 1 / step} for step in range(1, length + 1)]
        (tmp_path / "training.json").write_text(json.dumps({"history": history}))
        found = arms.curve(tmp_path)
        assert found["step"][-1] == length
        assert found["fvu"][-1] == 1 / length
        assert len(found["step"]) <= 2 * arms.CURVE_POINTS


@pytest.mark.parametrize("layers", [1, 12, 48])
def test_the_picture_of_all_layers_can_be_read(layers):
    rows = [made_up(layer, 42, arm, 1, layer % 3) for layer in range(layers) for arm in INITS]
    figure = importlib.import_module("multi_layer").figure(
        runs_with(rows), options("multi_layer", arms=list(INITS))
    )
    assert set(INITS) <= set(legible_texts(figure))


@pytest.mark.parametrize("points", [0.0, 3.0])
def test_the_picture_of_a_sweep_can_be_read(points):
    scores = SCORES
    pairs = [
        {"l1": l1, "score": score, "points": points * i}
        for i, score in enumerate(scores)
        for l1 in (0.0005, 0.001, 0.005)
    ]
    summary = {"pairs": pairs, "noise": {"points": points}}
    assert set(scores) <= set(legible_texts(importlib.import_module("sweep").figure(summary)))


def test_the_picture_of_phase_1_can_be_read(phase1):
    shown = legible_texts(importlib.import_module("phase1_toy").figure(phase1))
    assert {"found", "as published", "threshold"} <= set(shown)


# --- the study of codecs


@pytest.fixture
def codecs():
    """One site at which seeds differ, and int8 from float32 by a little."""
    fvu = {("float32", 0): 0.5, ("float32", 1): 0.6, ("float32", 2): 0.4, ("int8", 0): 0.51}
    site = {"model": "demo", "site": "blocks.3.mlp.hook_post"}
    kinds = ("cosine", "matched_cosine", "correlation", "matched_correlation")
    return {
        "codecs": ["int8"],
        "refused": [],
        "dictionaries": [
            site | {"codec": codec, "seed": seed, "fvu": fvu[codec, seed], "dead": 0}
            for codec, seed in fvu
        ],
        "pairs": [
            site | {"between": name} | dict.fromkeys(kinds, 0.9)
            for name in ("int8", "another seed")
        ],
    }


def values_of(x):
    """What every codec makes of rows, by codec."""
    found = importlib.import_module("codec_values").measured("blocks.0.hook_resid_mid", x)
    return {row["codec"]: row for row in found}


def rows_with_a_massive_one(size=100.0):
    x = np.random.default_rng(0).standard_normal((1024, 16)).astype(np.float32)
    x[0] = size
    return x


def test_one_massive_row_takes_the_digits_of_the_others_only_from_codes_between_extremes():
    found = values_of(rows_with_a_massive_one())
    assert found["int8"]["massive"] == found["int8"]["whole"] == 1
    assert found["int8"]["fvu"] < 1.5e-4
    assert found["int8 of schema 1"]["fvu"] > 20 * found["int8"]["fvu"]
    assert found["int8, one scale"]["fvu"] > 1e-2
    assert found["int8"]["massive_error"] <= found["float16"]["massive_error"]


def test_a_codec_that_cannot_hold_a_site_says_so():
    found = values_of(rows_with_a_massive_one(1e6))
    assert "65504" in found["float16"]["refused"]
    assert "refused" not in found["int8"]


@pytest.mark.parametrize("codec", ["int8", "int6", "int4"])
def test_no_code_takes_less_than_the_bound(codec):
    row = values_of(np.random.default_rng(0).standard_normal((2048, 16)).astype(np.float32))[codec]
    assert row["least_bits"] < row["bits"] < row["least_bits"] + 1


def test_the_bound_of_a_normal_distribution_is_half_the_logarithm_of_its_error():
    x = np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32)
    bound = importlib.import_module("codec_values").Bound(3 * x + 1)
    assert bound.bits(0.03 * x) == pytest.approx(np.log2(100), abs=0.02)


@pytest.mark.parametrize(
    ("module", "file"), [("codec_values", "codec_values"), ("codec_study", "codecs")]
)
def test_a_model_that_is_not_there_is_left_out_with_a_reason(module, file, pipeline):
    errors = pipeline(module, "--model", "smollm2=nowhere")[2]
    assert "smollm2 is left out" in errors
    found = json.loads(Path(f"out/{file}.json").read_text("utf-8"))
    assert "is not there" in found["models"]["smollm2"]["left_out"]


def test_a_dictionary_whose_latents_are_in_another_order_is_found_again():
    likeness = importlib.import_module("codec_study").likeness
    decoder = torch.eye(4)
    code = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    order = [1, 2, 3, 0]
    found = likeness(decoder, code, decoder[order], code[:, order])
    assert (found["matched_cosine"], found["matched_correlation"]) == pytest.approx((1, 1))
    assert found["cosine"] == 0
    assert found["correlation"] < 0.5


def test_a_latent_that_the_other_never_uses_is_like_none_and_a_silent_one_does_not_count():
    likeness = importlib.import_module("codec_study").likeness
    code = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    code[:, 2] = 0
    other = code.clone()
    other[:, 1] = 0
    found = likeness(torch.eye(3), code, torch.eye(3), other)
    assert found["latents"] == 2
    assert found["correlation"] == pytest.approx(0.5)


def test_seeds_are_compared_in_all_pairs(codecs):
    page = importlib.import_module("codec_likeness")
    both_ways = [0.2, -0.2, -1 / 6, -1 / 3, 0.25, 0.5]
    assert page.by_seed(codecs["dictionaries"]) == pytest.approx(both_ways)
    assert page.by_codec(codecs["dictionaries"], "int8") == pytest.approx(0.02)


def test_the_picture_of_codecs_has_every_pair_either_way_round(codecs):
    module = importlib.import_module("codec_likeness")
    figure = module.figure(module.Study(codecs))
    assert "another\nseed" in legible_texts(figure)
    seeds = figure.axes[0].lines[-1].get_ydata()
    assert sorted(seeds) == pytest.approx([-100 / 3, -20, -100 / 6, 20, 25, 50])


def test_the_pictures_of_the_page_on_codecs_can_be_read():
    page, likeness = map(importlib.import_module, ("codec_page", "codec_likeness"))
    values, study = (
        json.loads((ROOT / "docs" / f"{name}.json").read_text("utf-8"))
        for name in ("codec_values", "codecs")
    )
    assert "int8, one scale" in legible_texts(page.values_figure(values))
    assert legible_texts(likeness.figure(likeness.Study(study)))


def test_the_page_on_codecs_is_written_with_its_pictures_or_not_at_all(pipeline, monkeypatch):
    Path("out").mkdir()
    for name in ("codec_values", "codecs"):
        (Path("out") / f"{name}.json").write_text((ROOT / f"docs/{name}.json").read_text("utf-8"))
    page = importlib.import_module("codec_page")
    with monkeypatch.context() as patch:
        patch.setattr(page, "figure", Mock(side_effect=KeyboardInterrupt))
        assert "stopped" in pipeline("codec_page")[2]
    assert not Path("out/codecs.md").exists()
    pipeline("codec_page")
    written = {path.name for path in Path("out").rglob("*.*")}
    assert {"codecs.md", "codecs.png", "codecs_values.png"} <= written


def test_one_seed_says_nothing_of_another():
    with pytest.raises(BadInput, match="seeds is 1"):
        importlib.import_module("codec_study").CodecStudySettings(seeds=1)


def test_every_arm_of_the_training_study_is_a_run_that_can_be_made():
    study = importlib.import_module("training_study")
    arms = study.arms(600, 3.0)
    for name, arm in arms.items():
        TrainSettings(**study.given(arms, name))
        if arm.base is not None:
            flags = re.findall(r"--(?:no-)?([a-z-]+)", name)
            assert {flag.replace("-", "_") for flag in flags} <= {*arm.options}, name


def test_the_training_study_goes_on_where_it_was(make_store, tmp_path, monkeypatch):
    study = importlib.import_module("training_study")
    source = {"model": {"name": "m"}}
    make_store("store", rows=400, sites={"blocks.6.mlp.hook_post": 8}, source=source)
    every = study.arms(20, 3.0)
    chosen = {name: every[name] for name in ("topk", "--clip 1")}
    monkeypatch.setattr(study, "arms", lambda *_: chosen)
    record = tmp_path / "training_m.json"
    words = ["--store", tmp_path / "store", "--d-sae", 40, "--steps", 20, "--batch-size", 32]
    words += ["--out", tmp_path / "out", "--record", record]

    def made(seeds):
        study.main.main([str(word) for word in [*words, "--seeds", seeds]], standalone_mode=False)
        return json.loads(record.read_text("utf-8"))["runs"]

    first = made(1)
    runs = made(2)
    assert runs[:2] == first
    assert [(run["arm"], run["seed"]) for run in runs] == [(a, s) for s in (0, 1) for a in chosen]
    table = study.measured([json.loads(record.read_text("utf-8"))])
    assert len(table.splitlines()) == 2 + len(chosen)


def test_a_stopped_evaluation_study_goes_on_where_it_was(make_store, monkeypatch, tmp_path, capsys):
    study = importlib.import_module("evaluation_study")
    names = (
        "sae",
        "transcoder",
        "skip-transcoder",
        "per-layer",
        "clt",
        "crosscoder",
        "diff",
        "dfc",
    )
    for name in names:
        (tmp_path / "checkpoints" / f"{name}-plain_1").mkdir(parents=True)
    measured: list[list[str]] = []
    ends = {"value": 1.0, "low": None, "high": None}
    keys = ("increase", "kl", "agreement", "recovered_from_zero", "recovered_from_mean")
    passes = {name: dict.fromkeys(keys, ends) for name in ("spliced", "random", "zero", "mean")}
    splice = {"sites": ["blocks.0.x"], "feedback": True, "passes": passes}

    class Stopped:
        """In place of the model: it is stopped at the crosscoder, the first time."""

        def __init__(self, paths, settings, by):  # noqa: ARG002
            self.names = [path.name.removesuffix("-plain_1") for path in paths]

        def run(self):
            if self.names == ["crosscoder"] and len(measured) == 3:
                measured.append([])
                raise KeyboardInterrupt
            measured.append(self.names)
            found = {"splices": [splice], "path": "", "steering": []}
            return [Mock(as_dict=lambda: dict(found)) for _ in self.names]

    monkeypatch.setattr(study, "Functional", Stopped)
    stores = [str(make_store(name)[0].root) for name in ("one", "other")]
    record = tmp_path / "evaluation.json"
    words = ["--store", stores[0], "--second", stores[1], "--model", "m", "--second-model", "n"]
    words += ["--checkpoints", str(tmp_path / "checkpoints"), "--out", str(record)]
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt, click.exceptions.Abort):
            study.main(words, standalone_mode=False)
    together = [list(group) for group in study.TOGETHER]
    assert measured == [*together[:3], [], *together[3:]]
    assert list(json.loads(record.read_text())["dictionaries"]) == list(names)
    assert "| dedicated features" in capsys.readouterr().out
    with pytest.raises(BadInput, match="give another out"):
        study.main([*words, "--blocks", "5"], standalone_mode=False)
