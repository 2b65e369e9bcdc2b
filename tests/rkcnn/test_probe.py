"""A probe's result on disk, and what train takes from it: its site, or its directions."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rkstore import RkCNNProbe, RkCNNResult, StoreSite
from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.rkcnn.mine import last_probed, probe
from rkstore.rkcnn.result import DESCRIPTION, NAMES, TENSORS
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import options_in
from rkstore.store.batches.plan import split_chunks
from rkstore.training.inits import INITS
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE, OTHER = "blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"
D_SAE = 24
TAKE_DIRECTIONS = [name for name, init in INITS.items() if "directions" in options_in(init)]


@pytest.fixture
def store(make_store, tmp_path, monkeypatch):
    """A store, in a directory in which nothing else lies."""
    monkeypatch.chdir(tmp_path)
    return make_store("stores/one", rows=400)[0]


@pytest.fixture
def look(store):
    """Call it to probe a site with few subsets."""

    def make(hook=SITE, **given):
        usual = {"store": str(store.root), "hook": hook, "m": 3, "h": 40, "r": 10}
        return probe(ProbeSettings(**(usual | given)))

    return make


@pytest.fixture
def settings(store):
    """Call it for settings of a training of a few steps."""

    def make(**given):
        usual = {"store": str(store.root), "d_sae": D_SAE, "k": 4, "steps": 3, "batch_size": 32}
        return TrainSettings(**(usual | {"init": "rkcnn", "rkcnn_m": 3} | given))

    return make


WORDS = ("--d-sae", D_SAE, "--k", 4, "--steps", 3, "--batch-size", 32, "--rkcnn-m", 3)
TRAIN = ("train", "--init", "rkcnn", *WORDS)


# The result


@pytest.mark.parametrize("given", [{}, {"components": 2, "max_cosine": 0.9}])
def test_a_result_is_read_as_it_was_saved(look, given):
    result, path = look(**given)
    read = RkCNNResult.load(path)
    for name in NAMES:
        one, other = getattr(read, name), getattr(result, name)
        assert (one is None and other is None) or torch.equal(one, other), name
    assert (read.settings, read.source) == (result.settings, result.source)


@pytest.mark.parametrize(
    ("score", "said"),
    [("kurtosis", "--k-neighbors has no effect with --score kurtosis\n"), ("knn", "")],
)
def test_an_option_of_a_member_that_was_not_chosen_is_named(rkstore, store, score, said):
    words = ("--hook", SITE, "--m", 3, "--h", 40, "--r", 10, "--score", score)
    status, _, err = rkstore("probe", "--store", store.root, *words, "--k-neighbors", 3)
    assert (status, err) == (0, said)


def test_scores_that_are_not_finite_are_null_in_a_result(look, tmp_path):
    result, _ = look()
    result.all_scores[3] = torch.inf
    result.save(tmp_path / "saved")
    text = (tmp_path / "saved" / DESCRIPTION).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["scores"]["mean"] is None


@pytest.mark.parametrize("missing", [TENSORS, DESCRIPTION])
def test_half_a_result_is_refused(look, missing):
    _, path = look()
    (path / missing).unlink()
    with pytest.raises(BadInput, match="holds no probe"):
        RkCNNResult.load(path)


def test_two_halves_of_different_results_are_refused(look):
    _, one = look(score="kurtosis")
    _, other = look(score="variance_ratio", seed=1)
    shutil.copy(other / TENSORS, one / TENSORS)
    with pytest.raises(BadInput, match="probe again"):
        RkCNNResult.load(one)


@pytest.mark.parametrize("file", [TENSORS, DESCRIPTION])
def test_a_damaged_result_is_refused(look, file):
    _, path = look()
    (path / file).write_bytes((path / file).read_bytes()[:-20])
    with pytest.raises(BadInput, match="cannot read the probe in"):
        RkCNNResult.load(path)


def test_a_result_of_version_0_1_has_no_digest_and_is_read(look):
    _, path = look()
    described = json.loads((path / DESCRIPTION).read_text())
    del described["sha256"]
    (path / DESCRIPTION).write_text(json.dumps(described))
    assert RkCNNResult.load(path).top_directions is not None


# The site that was probed last


def test_the_site_that_was_probed_last_is_trained_and_named_first(rkstore, look):
    for hook in (OTHER, SITE, OTHER):
        look(hook)
    status, out, err = rkstore(*TRAIN)
    assert status == 0, err
    first, path = out.splitlines()
    assert first.startswith(f"{OTHER}, the site of stores/one that was probed last (results/probe/")
    assert load_dictionary(path)[1]["hook_name"] == OTHER


def test_last_is_by_the_time_of_the_file(store, look):
    for seconds, hook in ((20, OTHER), (10, SITE)):
        _, path = look(hook)
        os.utime(path / DESCRIPTION, (seconds, seconds))
    assert last_probed(store)[0] == OTHER


def test_probes_of_other_stores_and_of_arrays_do_not_count(store, look, make_store):
    look(OTHER)
    other, _ = make_store("elsewhere", rows=300)
    look(SITE, store=str(other.root), out="results/probe/other")
    RkCNNProbe(12, m=3, h=20, r=5).probe(torch.randn(50, 12)).save("results/probe/array")
    assert last_probed(store)[0] == OTHER


def test_a_site_that_is_asked_for_is_trained_whatever_was_probed(rkstore, look):
    look(OTHER)
    status, out, _ = rkstore(*TRAIN, "--hook", SITE)
    assert status == 0
    assert len(out.splitlines()) == 1
    assert SITE in out


def test_a_store_of_one_site_needs_no_probe(rkstore, make_store):
    make_store("stores/one", rows=400, sites={SITE: 12})
    assert rkstore(*TRAIN)[0] == 0


@pytest.mark.usefixtures("store")
def test_without_a_probe_the_right_ways_are_said(rkstore):
    status, _, err = rkstore(*TRAIN)
    assert status == 2
    assert "leaves 3 sites to choose from" in err
    for way in ("--layer and --hook", "probe one first", "--layers all"):
        assert way in err


def test_python_is_told_a_site_or_asks_for_one(settings, look):
    look()
    with pytest.raises(BadInput, match="leaves 3 sites to choose from"):
        train(settings())


def test_an_option_that_has_no_part_is_said_when_it_is_typed_and_not_in_a_file(
    rkstore, store, tmp_path
):
    words = ("train", "--store", store.root, "--hook", SITE, *WORDS)
    (tmp_path / "run.yaml").write_text("l1: 3.0\nrkcnn_m: 3\nsubspace_dim: 5\n")
    status, _, err = rkstore(*words, "--config", "run.yaml", "--l1", 2)
    assert status == 0
    lines = err.splitlines()
    assert "--l1 has no effect with a topk code" in lines
    assert "--rkcnn-m has no effect with --init datapoint" in lines
    assert "subspace" not in err


# One dictionary a layer


@pytest.mark.parametrize("layers", ["all", "0-1", "1,0"])
@pytest.mark.usefixtures("store")
def test_one_dictionary_a_layer_is_the_one_that_is_trained_alone(rkstore, layers):
    status, out, err = rkstore(*TRAIN, "--hook", "mlp.hook_post", "--layers", layers)
    assert status == 0, err
    alone = [rkstore(*TRAIN, "--hook", site, "--out", "alone")[1].strip() for site in (SITE, OTHER)]
    for one, other in zip(out.splitlines(), alone, strict=True):
        assert one.removeprefix("checkpoints/") == other.removeprefix("alone/")
        for file in ("sae_weights.safetensors", "cfg.json"):
            assert (Path(one) / file).read_bytes() == (Path(other) / file).read_bytes()


@pytest.mark.usefixtures("store")
def test_a_name_becomes_a_directory_of_layers(rkstore):
    words = ("--hook", "mlp.hook_post", "--layers", "all", "--name", "k8")
    _, out, _ = rkstore(*TRAIN, *words)
    where = "checkpoints/sae/random/k8"
    assert out.splitlines() == [f"{where}/{site}_3" for site in (SITE, OTHER)]


@pytest.mark.usefixtures("store")
def test_several_files_train_several_dictionaries_a_layer(rkstore, tmp_path):
    for lr in (0.1, 0.2):
        (tmp_path / f"{lr}.yaml").write_text(f"lr: {lr}\nname: '{lr}'\n")
    files = ("--config", "0.1.yaml", "--config", "0.2.yaml")
    status, out, err = rkstore(*TRAIN, *files, "--hook", "mlp.hook_post", "--layers", "all")
    assert status == 0, err
    found = [line.removeprefix("checkpoints/sae/random/") for line in out.splitlines()]
    assert found == [f"{lr}/{site}_3" for site in (SITE, OTHER) for lr in (0.1, 0.2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layers", "all"], "--layer 1 leaves 2 sites"),
        (["--layers", "0-2", "--hook", "mlp.hook_post"], "whose layers are 0-1"),
        (["--layers", "0", "--hook", "hook_mlp_out"], "--layer 0 and --hook hook_mlp_out is not"),
        (["--layers", "all", "--hook", "nowhere"], "--hook nowhere is not in the store"),
        (["--layers", "some", "--hook", "mlp.hook_post"], "--layers is 'some'"),
        (["--layers", "all", "--layer", 0], "leave out --layer"),
        (["--layers", "all", "--directions", "there"], "leave out --directions"),
    ],
)
@pytest.mark.usefixtures("store")
def test_layers_that_cannot_be_trained_are_refused(rkstore, words, said):
    status, out, err = rkstore(*TRAIN, *words)
    assert (status, out) == (2, "")
    assert said in err


def test_train_gives_one_path_and_so_takes_no_layers(settings):
    with pytest.raises(BadInput, match="one dictionary per layer"):
        train(settings(layers="all"))


# A probe's directions


def begun(settings):
    """The decoder as a training begins, without rows blended in."""
    return prepare(settings).dictionary.W_dec.detach()


@pytest.mark.parametrize("init", TAKE_DIRECTIONS)
@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_latents_begin_at_the_directions_of_a_probe_the_best_first(settings, look, init, fraction):
    result, path = look(directions="ica", whiten=True)
    given = {"init": init, "datapoint_share": 0.0, "rkcnn_fraction": fraction}
    made = begun(settings(directions=str(path), **given))
    plain = begun(settings(hook=SITE, **given))
    n = min(10, round(fraction * D_SAE))
    torch.testing.assert_close(made[:n], result.top_directions[:n])
    mined = round(fraction * D_SAE)
    torch.testing.assert_close(made[mined:], plain[mined:])


def test_nothing_is_mined_where_directions_are_given(settings, look, monkeypatch):
    _, path = look()
    monkeypatch.setattr(RkCNNProbe, "probe", None)
    assert prepare(settings(directions=str(path))).hook_name == SITE


def test_the_directions_are_part_of_what_a_run_is(settings, look):
    one, other = (look(seed=seed, out=f"probe/{seed}")[1] for seed in (0, 1))
    shutil.copytree(one, "copy")
    names = [prepare(settings(directions=str(path))).name for path in (one, "copy", other)]
    names.append(prepare(settings(hook=SITE)).name)
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_a_run_is_not_taken_up_with_other_directions(settings, look):
    one, other = (look(seed=seed, out=f"probe/{seed}")[1] for seed in (0, 1))
    train(settings(directions=str(one), name="run"))
    for given in ({"directions": str(other)}, {"hook": SITE}):
        with pytest.raises(BadInput, match=r"another run with this name .directions_sha256"):
            train(settings(name="run", **given))


@pytest.mark.parametrize("init", [name for name in INITS if name not in TAKE_DIRECTIONS])
def test_an_init_without_a_probes_directions_refuses_them(settings, look, init):
    _, path = look()
    with pytest.raises(BadInput, match=f"init {init} does not use the directions"):
        train(settings(init=init, directions=str(path)))


def test_directions_of_another_site_are_refused(settings, look):
    _, path = look(OTHER)
    with pytest.raises(BadInput, match=f"is of {OTHER}, not of {SITE}"):
        train(settings(hook=SITE, directions=str(path)))


def test_directions_of_another_store_are_refused(settings, look, make_store):
    other, _ = make_store("elsewhere", rows=300)
    _, path = look(store=str(other.root))
    with pytest.raises(BadInput, match="belongs to another store"):
        train(settings(directions=str(path)))


@pytest.mark.parametrize("chunks", ["all", "held out"])
def test_directions_that_saw_rows_held_out_are_refused(settings, store, tmp_path, chunks):
    seen = None if chunks == "all" else split_chunks(store)[1]
    result = RkCNNProbe(12, m=3, h=20, r=5).probe(StoreSite(store, SITE, seen))
    result.save(tmp_path / "saw")
    with pytest.raises(BadInput, match="held out"):
        train(settings(directions=str(tmp_path / "saw")))


@pytest.mark.parametrize("change", ["none", "narrow"])
def test_directions_that_do_not_fit_are_refused(settings, look, tmp_path, change):
    result, _ = look()
    object.__setattr__(
        result, "top_directions", None if change == "none" else result.top_directions[:, :5]
    )
    result.save(tmp_path / "changed")
    with pytest.raises(BadInput, match="probe again"):
        train(settings(directions=str(tmp_path / "changed")))


def test_a_directory_without_a_probe_is_refused(settings, tmp_path):
    with pytest.raises(BadInput, match="holds no probe"):
        train(settings(directions=str(tmp_path)))


def test_a_stopped_run_needs_its_directions_to_go_on_and_gets_the_same_bytes(settings, look):
    _, path = look()
    chosen = settings(directions=str(path), name="run", checkpoint_every=2, steps=4)
    through = train(chosen)
    weights = load_file(through / "sae_weights.safetensors")
    again = load_file(train(chosen) / "sae_weights.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_home_directory_is_found(look, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _, path = look(out="~/probe")
    assert path == tmp_path / "probe"
    assert train(settings(directions="~/probe", out="~/runs")).is_relative_to(tmp_path / "runs")
