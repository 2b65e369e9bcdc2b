"""Training from a store: it learns, it resumes to the bit, it refuses what does not fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stopped import FILES, assert_goes_on_to_the_same_bytes, train_until

import rkstore.training.reading as reading
import rkstore.training.train as module
from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.settings import options_in
from rkstore.settings import replace as with_other
from rkstore.store.batches.plan import BatchPlan
from rkstore.training.checkpoint import STATE, Diverged, resume
from rkstore.training.helpers import resample
from rkstore.training.helpers.entropy import Entropy
from rkstore.training.ignored import unused
from rkstore.training.run import RESOLVED, default_name, prepare
from rkstore.training.schedules import learning_rate
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train, train_all

SITE = "blocks.0.mlp.hook_post"
SELECTS = ("relu", "topk", "batchtopk")


@pytest.fixture
def settings(make_store, tmp_path):
    """Call it for settings of a small run."""
    store, _ = make_store(rows=400)

    def make(**given):
        usual = {
            "store": str(store.root),
            "hook": SITE,
            "d_sae": 24,
            "k": 4,
            "steps": 40,
            "batch_size": 32,
            "warmup": 5,
            "out": str(tmp_path / "checkpoints"),
        }
        return TrainSettings(**(usual | given))

    return make


def weights(path):
    return load_file(path / "sae_weights.safetensors")


def history(path):
    return json.loads((path / "training.json").read_text())["history"]


@pytest.mark.parametrize("dictionary", SELECTS)
@pytest.mark.parametrize("init", ["random", "tied", "rkcnn"])
def test_training_lowers_the_error(settings, dictionary, init):
    path = train(settings(dictionary=dictionary, init=init, steps=200, l1=0.01, rkcnn_m=3))
    fvu = [entry["fvu"] for entry in history(path)]
    assert fvu[-1] < 0.6 * fvu[0]


def test_the_checkpoint_lies_where_the_model_and_the_run_say(settings, tmp_path):
    path = train(settings(name="mine"))
    assert path == tmp_path / "checkpoints" / "sae" / "random" / "mine_40"
    assert (path / "cfg.json").is_file()


def test_the_written_dictionary_works_in_the_units_of_the_store(settings, make_store):
    path = train(settings(steps=200))
    dictionary, metadata = load_dictionary(path)
    _, values = make_store("again", rows=400)
    x = torch.from_numpy(values[SITE])
    fvu = (dictionary(x) - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert fvu.item() == pytest.approx(history(path)[-1]["fvu"], abs=0.1)
    assert metadata["hook_name"] == SITE


def test_decoder_rows_keep_norm_one(settings):
    norms = weights(train(settings()))["W_dec"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(24))


def test_the_same_settings_give_the_same_bytes(settings, tmp_path):
    one = train(settings(out=str(tmp_path / "one")))
    two = train(settings(out=str(tmp_path / "two")))
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("d_sae", [24, 96])
@pytest.mark.parametrize("dictionary", SELECTS)
def test_a_stopped_run_goes_on_to_the_same_bytes(settings, tmp_path, dictionary, d_sae, dtype):
    chosen = {"dictionary": dictionary, "d_sae": d_sae, "dtype": dtype}
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through")


HELP = {
    "auxk": {"auxk": 8},
    "resampling": {"resample_every": 10},
    "both": {"auxk": 8, "resample_every": 10},
    "ghosts": {"ghost_gradients": True, "entropy": 0.1},
}


@pytest.mark.parametrize("help", HELP)
@pytest.mark.parametrize("dictionary", SELECTS)
def test_a_stopped_run_that_helps_its_dead_latents_does_so_too(
    settings, tmp_path, dictionary, help
):
    few_fire = {"d_sae": 96, "k": 2, "l1": 30.0, "dead_after": 64, "init": "random"}
    chosen = few_fire | HELP[help] | {"dictionary": dictionary}
    through = assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through", 20, 8)
    assert history(through)[0]["dead"] > 0


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"dictionary": "topk"}, set()),
        ({"dictionary": "relu"}, {"l1"}),
        ({"dictionary": "gated"}, {"l1", "gates"}),
        ({"dictionary": "jumprelu", "auxk": 8}, {"l0", "auxk"}),
        ({"dictionary": "topk", "ghost_gradients": True, "entropy": 0.1}, {"ghost", "entropy"}),
    ],
)
def test_every_loss_is_logged_by_its_name(settings, chosen, names):
    few_fire = {"d_sae": 96, "k": 2, "l1": 30.0, "dead_after": 64, "init": "random"}
    found = history(train(settings(**few_fire | chosen)))
    assert all({*entry["losses"]} == {"reconstruction", *names} for entry in found)
    assert all(loss > 0 for entry in found for loss in entry["losses"].values())


def test_a_loss_that_is_not_finite_ends_the_run(settings, monkeypatch):
    monkeypatch.setattr(Entropy, "loss", lambda _, now: 0 * now.f.sum() + torch.inf)
    with pytest.raises(Diverged, match="its loss entropy is not finite"):
        train(settings(entropy=1.0))


def test_a_penalty_that_a_large_decoder_would_evade_is_refused(settings):
    with pytest.raises(BadInput, match="entropy could be evaded by a small code"):
        prepare(settings(entropy=1.0, unit_decoder=False))
    prepare(settings(entropy=1.0, unit_decoder=False, code_norm="sae"))


LEARNED = {
    "jumprelu": {"l0": 3.0, "pre_act": 0.1},
    "gated": {"l1": 3.0},
    "abstopk": {"k": 2},
}


@pytest.mark.parametrize("dictionary", LEARNED)
def test_so_does_one_whose_select_learns_or_whose_code_is_signed(settings, tmp_path, dictionary):
    few_fire = {"d_sae": 96, "dead_after": 32, "init": "random", "auxk": 8, "resample_every": 10}
    chosen = few_fire | LEARNED[dictionary] | {"dictionary": dictionary}
    through = assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through", 20, 8)
    fvu = [entry["fvu"] for entry in history(through)]
    assert fvu[-1] < fvu[0]


RARER = {
    "prefixes drawn anew": {"prefix_draws": 3},
    "prefixes by activation": {"prefixes": (0.5, 1.0), "prefix_order": "activations"},
    "decoder rows of any length": {"code_norm": "sae", "unit_decoder": False},
}


@pytest.mark.parametrize("chosen", RARER.values(), ids=RARER)
def test_so_does_one_with(settings, tmp_path, chosen):
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through", 20, 8)


@pytest.mark.parametrize(("auxk", "learns"), [(0, False), (8, True)])
def test_auxk_teaches_latents_that_never_fired(settings, auxk, learns):
    chosen = settings(d_sae=96, k=1, init="random", auxk=auxk, dead_after=64)
    before = prepare(chosen).dictionary.W_dec
    path = train(chosen)
    idle = load_file(path / STATE)["idle"]
    never_fired = idle == idle.max()
    moved = (weights(path)["W_dec"] - before).norm(dim=1)[never_fired]
    assert len(moved) > 10
    assert (moved > 1e-3).any() == learns


def test_none_are_resampled_while_the_rate_falls(settings, monkeypatch):
    steps = []
    monkeypatch.setattr(resample, "resample_dead", lambda run: steps.append(run.step))
    train(settings(steps=40, resample_every=8))
    assert steps == [8, 16, 24, 32]


def test_a_resampled_latent_is_no_longer_dead(settings):
    run = prepare(settings(resample_every=5, dead_after=10))
    batch = next(run.reading.batches(32, seed=0))
    module.step(run, run.reading.rows(batch, "cpu"))
    run.idle[3:6] = 10
    resample.resample_dead(run)
    assert not run.idle[3:6].any()


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        # An epoch has 368 rows: nine batches of 40 and one of 8, or a single batch.
        ({"steps": 100, "batch_size": 40}, 3680 // 20),
        ({"steps": 13, "batch_size": 40}, (368 + 120) // 20),
        ({"steps": 40, "batch_size": 368}, 40 * 368 // 20),
        ({"steps": 40, "batch_size": 100_000}, 40 * 368 // 20),
        ({"steps": 10**9}, 10_000_000),
        ({"steps": 1, "batch_size": 1}, 1),
        ({"dead_after": 77}, 77),
    ],
)
def test_a_latent_is_dead_after_a_twentieth_of_the_run_at_most(settings, change, tokens):
    assert prepare(settings(**change)).dead_after == tokens


def test_more_auxiliary_latents_than_there_are_are_refused(settings):
    with pytest.raises(BadInput, match="auxk is 25: it must be from 0 to the 24 latents"):
        train(settings(auxk=25))


def test_a_finished_run_is_not_trained_again(settings, monkeypatch):
    path = train(settings())
    monkeypatch.setattr("rkstore.training.train.step", None)
    assert train(settings()) == path


def test_only_the_last_checkpoint_keeps_what_resuming_needs(settings):
    path = train(settings(checkpoint_every=10, name="run"))
    kept = sorted(p.parent.name for p in path.parent.glob(f"*/{STATE}"))
    assert kept == ["run_40"]
    assert len(list(path.parent.glob("run_*/cfg.json"))) == 4


def test_another_run_of_the_same_name_is_refused(settings):
    train(settings(name="run"))
    with pytest.raises(BadInput, match=r"lr was 0.003, is 0.01.*name"):
        train(settings(name="run", lr=0.01))


def test_the_order_of_the_rows_can_have_a_seed_of_its_own(settings, monkeypatch):
    rows = {}

    def remember(run, batch, *_):
        rows.setdefault(run.name, batch[SITE].numpy())
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "step", remember)
    seeds = {"a": {"seed": 3}, "b": {"seed": 4, "data_seed": 3}, "c": {"seed": 4}}
    for name, seed in seeds.items():
        with pytest.raises(KeyboardInterrupt):
            train(settings(name=name, **seed))
    assert np.array_equal(rows["a"], rows["b"])
    assert not np.array_equal(rows["a"], rows["c"])


def test_a_seed_of_the_order_leaves_the_weights_as_they_begin(settings):
    one, other = prepare(settings()), prepare(settings(data_seed=9))
    assert torch.equal(one.dictionary.W_dec, other.dictionary.W_dec)


def test_bfloat16_learns_as_well_and_is_on_record(settings):
    paths = [train(settings(dtype=dtype, steps=200)) for dtype in ("float32", "bfloat16")]
    exact, rounded = (history(path)[-1]["fvu"] for path in paths)
    assert rounded == pytest.approx(exact, rel=0.1)
    _, metadata = load_dictionary(paths[1])
    assert metadata["rkstore"]["dtype"] == "bfloat16"
    assert all(tensor.dtype == torch.float32 for tensor in weights(paths[1]).values())


@pytest.mark.parametrize("dictionary", SELECTS)
def test_the_written_code_is_as_sparse_as_the_trained_one(settings, dictionary):
    run = settings(dictionary=dictionary, steps=200, l1=0.01)
    path = train(run)
    x = torch.from_numpy(prepare(run).store.read(SITE))
    l0 = load_dictionary(path)[0].encode(x).count_nonzero().item() / len(x)
    assert l0 == pytest.approx(history(path)[-1]["l0"], rel=0.2)


def several(settings, **shared):
    """Settings of runs as different as may share a reading."""
    return [
        settings(dictionary="relu", l1=0.01, steps=30, **shared),
        settings(dictionary="topk", d_sae=96, seed=5, data_seed=0, **shared),
        settings(dictionary="batchtopk", init="random", lr=0.01, **shared),
        settings(dictionary="topk", dtype="bfloat16", checkpoint_every=15, **shared),
    ]


def assert_as_if_alone(settings, tmp_path, together):
    """Every run in ``together`` has the files that it has when it is trained by itself."""
    for one, path in zip(several(settings, out=str(tmp_path / "alone")), together, strict=True):
        alone = train(one)
        for name in FILES:
            assert (path / name).read_bytes() == (alone / name).read_bytes(), (path, name)


def test_dictionaries_on_one_reading_have_the_bytes_of_each_trained_alone(settings, tmp_path):
    together = train_all(several(settings))
    assert_as_if_alone(settings, tmp_path, together)


def test_one_reading_of_many_goes_on_to_the_same_bytes(settings, tmp_path):
    runs = several(settings)
    train_until(25, runs)
    assert_as_if_alone(settings, tmp_path, train_all(runs))


def test_one_reading_of_many_decodes_what_one_of_one_does(settings, monkeypatch):
    read, counted = reading.read_batches, []

    def counting(*args, **kwargs):
        for batch in read(*args, **kwargs):
            counted.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(reading, "read_batches", counting)
    train_all([settings(lr=rate) for rate in (1e-3, 2e-3, 3e-3)])
    assert len(counted) == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 16}, "the same batch_size, not 32 and 16"),
        ({"seed": 1}, "the same data_seed, not 0 and 1"),
        ({"special_tokens": True}, "the same special_tokens, not False and True"),
        ({}, "give each its own name"),
    ],
)
def test_what_cannot_share_a_reading_is_refused(settings, change, said):
    with pytest.raises(BadInput, match=said):
        train_all([settings(), settings(**change)])


def test_dictionaries_of_different_stores_are_refused(settings, make_store):
    other, _ = make_store("other", rows=300)
    with pytest.raises(BadInput, match="the same store"):
        train_all([settings(), settings(store=str(other.root))])


def test_nothing_to_train_is_refused():
    with pytest.raises(BadInput, match="nothing to train"):
        train_all([])


def other_value(spec):
    """A value that is not the default of that setting."""
    if spec.choices:
        return next(choice for choice in spec.choices if choice != spec.default)
    if spec.kind is bool:
        return not spec.default
    if spec.several and spec.kind is float:
        return (0.25, 1.0)
    return "other" if spec.kind is str else (spec.default or 1) + 1


VARIED = [spec for spec in options_in(TrainSettings).values() if len(spec.choices) != 1]


@pytest.mark.parametrize("spec", VARIED, ids=lambda spec: spec.name)
def test_default_names_differ_wherever_two_runs_do(settings, spec):
    run = prepare(TrainSettings(store=settings().store, hook=SITE, d_sae=24, k=4))
    changed = replace(run, settings=with_other(run.settings, **{spec.name: other_value(spec)}))
    same = not spec.identity or spec.name in RESOLVED
    assert (default_name(changed.identity) == run.name) == same


@pytest.mark.parametrize(
    "change",
    [{"source": {"text": {"sha256": "ab"}}}, {"codec": "int8"}, {"rows": 392}, {"shards": 3}],
)
def test_the_same_settings_on_another_store_have_another_name(settings, make_store, change):
    other, _ = make_store("other", **({"rows": 400} | change))
    assert prepare(settings(store=str(other.root))).name != prepare(settings()).name


def test_a_site_has_one_name_however_it_is_asked_for(settings):
    by_name, by_layer = settings(), settings(hook="mlp.hook_post", layer=0)
    assert prepare(by_name).name == prepare(by_layer).name
    assert prepare(settings(hook="blocks.1.mlp.hook_post")).name != prepare(by_name).name


def test_the_checkpoint_says_which_model_and_text_it_was_trained_on(settings, make_store):
    source = {
        "model": {"name": "org/random", "weights_sha256": "12ab", "revision": None},
        "text": {"sha256": "cd34"},
    }
    store, _ = make_store("known", rows=400, source=source)
    path = train(settings(store=str(store.root)))
    recorded = load_dictionary(path)[1]["rkstore"]
    assert recorded["model"] == {"name": "org/random", "weights_sha256": "12ab"}
    assert recorded["text"] == {"sha256": "cd34"}
    assert recorded["store_fingerprint"] == store.manifest.fingerprint


def as_version_0_1_wrote_it(path):
    """It kept the layer as it was typed, beside the site, and knew of no rows to leave out."""
    report = json.loads((path / "training.json").read_text())
    report["identity"]["layer"] = 0
    del report["identity"]["special_tokens"], report["identity"]["max_norm"]
    (path / "training.json").write_text(json.dumps(report))


def test_a_run_of_version_0_1_that_was_given_a_name_goes_on(settings, monkeypatch):
    path = train(settings(name="old", special_tokens=True))
    as_version_0_1_wrote_it(path)
    monkeypatch.setattr(module, "step", None)
    assert train(settings(name="old", special_tokens=True)) == path


def test_a_run_of_version_0_1_does_not_go_on_without_its_special_tokens(settings):
    as_version_0_1_wrote_it(train(settings(name="old", special_tokens=True)))
    with pytest.raises(BadInput, match="special_tokens was True, is False"):
        train(settings(name="old"))


# Names are the user's own text.

NAMES = [
    *("k[8]", "k*", "a?", "[!a]*", "k{8}", "k 8", " ", "größe-κ", "k_8", "k_12_8", "_", "_8"),
    *("sweep/k8", "sweep/k*/b[1]", "%s", "$HOME", "~", "-x", "a\\b", "k\n8", "k..", "8", "k.8"),
]


@pytest.mark.parametrize("name", NAMES)
def test_another_run_of_the_same_name_is_refused_whatever_the_name(settings, name):
    train(settings(name=name))
    with pytest.raises(BadInput, match=r"lr was 0.003, is 0.01.*name"):
        train(settings(name=name, lr=0.01))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_from_its_own_checkpoint_whatever_its_name(settings, tmp_path, name):
    through = train(settings(name=name, out=str(tmp_path / "through")))
    stopping = settings(name=name, checkpoint_every=10)
    train_until(25, [stopping])
    begun = []
    with pytest.MonkeyPatch.context() as patch:
        real = module.step
        patch.setattr(module, "step", lambda run, *b: (begun.append(run.step), real(run, *b)))
        path = train(stopping)
    assert begun[0] == 20
    assert path == tmp_path / "checkpoints" / "sae" / "random" / f"{name}_40"
    for file in FILES:
        assert (path / file).read_bytes() == (through / file).read_bytes(), file


def test_runs_whose_names_match_each_other_leave_each_other_alone(settings):
    paths = {name: train(settings(name=name, seed=i)) for i, name in enumerate(NAMES)}
    before = {name: [(path / file).read_bytes() for file in FILES] for name, path in paths.items()}
    for i, name in enumerate(NAMES):
        train(settings(name=name, seed=i))
    assert len(set(paths.values())) == len(NAMES)
    for name, path in paths.items():
        assert [(path / file).read_bytes() for file in FILES] == before[name], name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/tmp/k", "a//b", "a/", "..", "../k", "a/../../k", ".", "./k", ".k", "a/.b"),
        *("k\0", "k" * 300, "\ud800"),
    ],
)
def test_a_name_that_is_no_path_below_out_is_refused(settings, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=r"name is .*: give a name such as k8"):
        train(settings(name=name))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("model", ["org/m", "..", "", "org/", "m*?[1]", "größe", ".hidden", None])
def test_a_checkpoint_lies_below_out_whatever_the_model_is_called(
    settings, make_store, tmp_path, model
):
    store, _ = make_store("named", rows=400, source={"model": {"name": model}} if model else {})
    path = train(settings(store=str(store.root), name="k", steps=1))
    assert path.parent.parent == tmp_path / "checkpoints" / "sae"
    assert (path / "cfg.json").is_file()


def test_a_name_inside_a_checkpoint_is_refused(settings):
    path = train(settings(name="k"))
    with pytest.raises(BadInput, match="k_40 is no directory of runs"):
        train(settings(name="k_40/inner"))
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)


def test_a_directory_where_a_checkpoint_is_due_is_refused_and_kept(settings):
    inner = train(settings(name="k_40/inner"))
    with pytest.raises(BadInput, match="k_40 is in the way"):
        train(settings(name="k"))
    assert inner.is_dir()


# Runs that diverge.


def finite(path):
    """Whether every number of a checkpoint is finite, and its JSON is JSON."""
    for file in path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)
    tensors = [t for file in path.glob("*.safetensors") for t in load_file(file).values()]
    return all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("every", [1, 7, 1000])
@pytest.mark.parametrize("dictionary", SELECTS)
def test_a_run_that_diverges_stops_and_saves_nothing_that_is_not_finite(
    settings, tmp_path, dictionary, every
):
    chosen = settings(
        dictionary=dictionary, lr=1e8, warmup=20, steps=2000, checkpoint_every=every, name="wild"
    )
    with pytest.raises(Diverged, match=r"wild has diverged: at step \d+ .* not finite.*lr"):
        train(chosen)
    for path in (tmp_path / "checkpoints").rglob("wild_*"):
        assert finite(path)


@pytest.mark.parametrize("broken", ["W_enc", "b_dec"])
def test_the_last_good_checkpoint_of_a_diverged_run_stays(settings, monkeypatch, broken):
    real = module.step

    def breaking(run, *batch):
        real(run, *batch)
        if run.step == 25:
            with torch.no_grad():
                run.dictionary.get_parameter(broken)[0] = torch.nan

    monkeypatch.setattr(module, "step", breaking)
    chosen = settings(name="k", checkpoint_every=10)
    with pytest.raises(Diverged, match=r"at step 30 .*its checkpoint of step 20 is kept"):
        train(chosen)
    parent = prepare(chosen).parent
    assert sorted(path.name for path in parent.glob("k_*")) == ["k_10", "k_20"]
    assert finite(parent / "k_20")
    monkeypatch.setattr(module, "step", real)
    assert train(chosen).name == "k_40"


def test_a_run_that_diverges_leaves_those_on_the_same_reading_as_they_are(settings, tmp_path):
    good = settings(name="good", out=str(tmp_path / "together"))
    wild = settings(name="wild", lr=1e30, out=good.out)
    with pytest.raises(Diverged, match="wild has diverged") as raised:
        train_all([wild, good])
    assert "good" not in str(raised.value)
    alone = train(settings(name="good"))
    for file in FILES:
        assert (prepare(good).directory(40) / file).read_bytes() == (alone / file).read_bytes()


def test_a_batch_of_one_row_has_no_unexplained_variance_and_says_so(settings):
    path = train(settings(batch_size=1))
    assert {entry["fvu"] for entry in history(path)} == {None}
    assert finite(path)


def test_a_plan_counts_the_rows_that_its_batches_have():
    plan = BatchPlan(((0, 7), (20, 24)), batch_size=4)
    sizes = [len(batch) for epoch in range(3) for batch in plan.batches(epoch)]
    assert [plan.rows_before(n) for n in range(10)] == [sum(sizes[:n]) for n in range(10)]


def test_the_rate_rises_stays_and_falls_to_zero():
    rates = [learning_rate(step, 100, 9) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == rates[80] == 1
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0


@pytest.mark.parametrize(("norm", "expected"), [("d_in", 12), ("one", 1)])
def test_inputs_are_scaled_to_the_norm_that_is_asked_for(settings, norm, expected):
    run = prepare(settings(norm=norm))
    x = run.store.read(SITE).astype(np.float64) * run.reading.scales[SITE]
    assert np.square(x).sum(axis=1).mean() == pytest.approx(expected, rel=1e-6)


def test_inputs_can_be_left_as_they_are_stored(settings):
    assert prepare(settings(norm="none")).reading.scales == {SITE: 1}


@pytest.mark.parametrize("dictionary", SELECTS)
@pytest.mark.parametrize("norm", ["d_in", "one", "none"])
def test_the_written_dictionary_does_to_rows_what_the_trained_one_does_to_scaled_rows(
    settings, norm, dictionary
):
    chosen = settings(norm=norm, dictionary=dictionary, init_bias="quantile")
    written, _ = load_dictionary(train(chosen))
    run = prepare(chosen)
    resume(run)
    scale = run.reading.scales[SITE]
    trained, x = run.dictionary.eval(), torch.from_numpy(run.store.read(SITE))
    torch.testing.assert_close(written(x), trained(x * scale) / scale)


def test_a_layer_that_is_not_in_the_store_is_refused_with_those_that_are(settings):
    with pytest.raises(BadInput, match=r"layer 7 is not in.*blocks\.0\.mlp\.hook_post"):
        train(settings(hook=None, layer=7))


def test_too_large_a_k_is_refused(settings):
    with pytest.raises(BadInput, match=r"k is 25.*24 latents"):
        train(settings(k=25))


def test_a_site_of_zeros_is_refused(make_store, settings):
    zeros = {SITE: np.zeros((400, 12), np.float32)}
    store, _ = make_store("zeros", rows=400, values=zeros)
    with pytest.raises(BadInput, match="zero in every row"):
        train(settings(store=str(store.root)))


# Rows that stay together.


def test_training_on_pairs_takes_up_where_it_stopped(settings, tmp_path):
    chosen = {"order": "pairs", "temporal": 0.5, "prefixes": (0.2, 1.0), "d_sae": 30}
    found = history(assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through"))
    assert all({"reconstruction", "temporal"} == {*entry["losses"]} for entry in found)


def test_the_contrast_brings_the_first_latents_of_neighbours_closer(settings):
    def contrast(**more):
        chosen = {"order": "pairs", "dictionary": "relu", "l1": 0.1, "lr": 1e-2}
        path = train(settings(**chosen, temporal_share=0.5, steps=80, **more))
        dictionary, _ = load_dictionary(path)
        run = prepare(settings(**chosen))
        batch = next(run.reading.batches(300, 0))
        z = dictionary.encode(torch.from_numpy(batch.x[SITE]))[:, :12]
        z = torch.nn.functional.normalize(z, dim=1)
        return torch.nn.functional.cross_entropy(
            z[1::2] @ z[::2].T, torch.arange(len(z) // 2)
        ).item()

    assert contrast(temporal=10.0) < contrast(temporal=1e-6)


def test_neighbours_are_compared_only_in_batches_of_pairs(settings):
    for order in ("rows", "sequences"):
        with pytest.raises(BadInput, match=r"temporal compares rows .* add order pairs"):
            prepare(settings(temporal=1.0, order=order))
    prepare(settings(temporal=1.0, order="pairs"))


def test_dictionaries_of_one_pass_need_the_same_order(settings):
    with pytest.raises(BadInput, match="need the same order, not rows and pairs"):
        train_all([settings(name="one"), settings(name="two", order="pairs")])


def test_an_order_is_part_of_what_a_run_is_unless_it_is_rows(settings):
    names = [prepare(settings(order=order)).name for order in ("rows", "pairs", "sequences")]
    assert prepare(settings()).name == names[0]
    assert len({*names}) == 3


def test_options_of_a_helper_that_is_off_are_said_to_have_no_effect(settings):
    typed = ["temporal_share", "auxk_levels", "temporal"]
    found = unused(settings(temporal_share=0.5, auxk_levels=True), typed)
    assert found == {
        "temporal_share": "--temporal-share has no effect with --temporal 0",
        "auxk_levels": "--auxk-levels has no effect with --auxk 0",
    }
    assert not unused(settings(temporal=1.0, order="pairs", temporal_share=0.5), typed[::2])
