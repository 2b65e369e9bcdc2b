"""A run that starts from a trained dictionary: the same one, in this run's units, or a sentence."""

import json
import shutil
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file
from stopped import assert_goes_on_to_the_same_bytes
from test_every_wiring import KINDS, TWO, rows_of
from test_every_wiring import settings as settings  # a fixture

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.training.checkpoint import STATE
from rkstore.training.ignored import unused
from rkstore.training.run import prepare
from rkstore.training.train import train, train_all

SAE = {"layer": "1", "hook": "mlp.hook_in"}
NORMED = SAE | {"code_norm": "sae", "unit_decoder": False}
SELECTS = ("relu", "topk", "batchtopk", "jumprelu", "gated", "abstopk")
STARTS = {
    **{select: SAE | {"dictionary": select} for select in SELECTS},
    **{f"{s}, normed": NORMED | {"dictionary": s} for s in ("relu", "batchtopk", "jumprelu")},
    "topk, normed": NORMED,
    "whitened": SAE | {"norm": "whiten"},
    "whitened and normed": NORMED | {"norm": "whiten", "dictionary": "batchtopk"},
    "standardised crosscoder": KINDS["crosscoder of models"] | {"norm": "standardise"},
    "standardised with a skip": KINDS["transcoder with a skip"] | {"norm": "standardise"},
    "averaged": SAE | {"ema": 0.9},
    "Matryoshka": SAE | {"prefixes": (0.5, 1.0)},
    **KINDS,
}


@pytest.mark.parametrize("kind", STARTS.values(), ids=STARTS)
def test_it_starts_as_the_dictionary_that_was_trained(settings, kind):
    path = train(settings(**kind))
    run = prepare(settings(**kind, from_=str(path), name="more"))
    trained, _ = load_dictionary(path)
    begun = run.reading.in_store_units(run.dictionary).eval()
    rows = rows_of(run)
    expected = trained(rows)
    for name, y in begun(rows).items():
        torch.testing.assert_close(y, expected[name], rtol=1e-3, atol=1e-3)
    assert not run.idle.any()
    assert run.step == 0


@pytest.mark.parametrize("kind", [SAE, KINDS["crosscoder of layers"]], ids=["sae", "crosscoder"])
@pytest.mark.parametrize("before", ["d_in", "centre", "whiten"])
@pytest.mark.parametrize("norm", ["d_in", "one", "none", "standardise", "whiten"])
def test_whatever_its_inputs_were_normalised_by(settings, kind, before, norm):
    path = train(settings(**kind, norm=before, name="start"))
    run = prepare(settings(**kind, from_=str(path), norm=norm, unit_decoder=False))
    rows = rows_of(run)
    expected = load_dictionary(path)[0](rows)
    for name, y in run.reading.in_store_units(run.dictionary).eval()(rows).items():
        torch.testing.assert_close(y, expected[name], rtol=1e-3, atol=1e-3)


def test_the_weights_are_those_of_the_training_state(settings):
    path = train(settings(**SAE))
    run = prepare(settings(**SAE, from_=str(path)))
    for name, tensor in run.dictionary.state_dict().items():
        torch.testing.assert_close(tensor, load_file(path / STATE)[name])


def test_it_begins_where_the_other_ended(settings):
    path = train(settings(**SAE))
    more = train(settings(**SAE, from_=str(path), steps=100))
    first, last = (json.loads((p / "training.json").read_text())["history"] for p in (path, more))
    assert last[0]["fvu"] < first[0]["fvu"]


def test_the_start_is_on_record_by_its_digest_whatever_its_path(settings, tmp_path):
    path = train(settings(**SAE))
    copied = shutil.copytree(path, tmp_path / "copied")
    runs = [prepare(settings(**SAE, from_=str(p))) for p in (path, copied)]
    identity = runs[0].identity
    assert identity == runs[1].identity
    assert (
        identity["from_sha256"]
        == sha256((path / "sae_weights.safetensors").read_bytes()).hexdigest()
    )
    assert identity["init"] == "from"
    assert "from_" not in identity
    assert "-topk-from-" in runs[0].name
    assert "from_sha256" not in prepare(settings(**SAE)).identity


def test_a_stopped_run_goes_on_to_the_same_bytes(settings, tmp_path):
    kind = SAE | {"dictionary": "batchtopk"}
    start = train(settings(**kind, name="start"))
    chosen = kind | {"from_": str(start), "seed": 1}
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through")


def test_more_steps_under_the_same_name_are_refused_with_what_to_do(settings):
    path = train(settings(**SAE, name="run"))
    with pytest.raises(BadInput, match=rf"{path} is of a run of 60 .* for 90 .* give it as from"):
        train(settings(**SAE, name="run", steps=90))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": "0"}, r"the sites it reads is blocks.1.mlp.hook_in \(6 wide\), here blocks.0"),
        ({"d_sae": 24}, "d_sae is 40, here 24"),
        ({"dictionary": "relu"}, "dictionary is topk, here relu"),
        ({"dictionary": "batchtopk"}, "dictionary is topk, here batchtopk"),
        ({"code_norm": "sae"}, "wired in another way"),
        ({"wiring": "transcoder", "hook": None}, "the sites it writes is blocks.1.mlp.hook_in"),
        ({"control": "frozen-decoder", "init": "tied"}, "leave out one of them"),
        ({"layer": None, "layers": "all"}, "leave out from"),
    ],
)
def test_a_start_of_another_shape_is_refused(settings, change, said):
    path = train(settings(**SAE))
    with pytest.raises(BadInput, match=said):
        train_all([settings(**SAE | change, from_=str(path))])


def test_so_is_one_of_another_wiring_over_the_same_sites(settings):
    path = train(settings(**TWO, wiring="crosscoder"))
    with pytest.raises(BadInput, match="wired in another way"):
        prepare(settings(**TWO, wiring="dfc", exclusive=(0.2, 0.1), from_=str(path)))


def test_thresholds_of_their_own_are_not_taken_for_the_one_of_a_batch(settings):
    path = train(settings(**SAE, dictionary="jumprelu"))
    with pytest.raises(BadInput, match="dictionary is jumprelu, here batchtopk"):
        prepare(settings(**SAE, dictionary="batchtopk", from_=str(path)))


def test_one_whose_decoder_rows_are_of_any_length_is_not_made_another(settings):
    path = train(settings(**SAE, dictionary="gated", unit_decoder=False, l1=0, lr=0.1))
    with pytest.raises(BadInput, match=r"decoder rows of norm .* give unit_decoder=False"):
        prepare(settings(**SAE, dictionary="gated", from_=str(path)))


def test_a_directory_without_a_dictionary_is_refused(settings, tmp_path):
    with pytest.raises(BadInput, match="holds no dictionary"):
        prepare(settings(**SAE, from_=str(tmp_path / "nothing")))


def test_options_of_an_init_have_no_effect_and_a_sentence_says_so(settings):
    said = unused(settings(**SAE, from_="x"), ["init", "center", "datapoint_share", "k"])
    assert said == {
        name: f"{flag} has no effect with --from"
        for name, flag in {
            "init": "--init",
            "center": "--center",
            "datapoint_share": "--datapoint-share",
        }.items()
    }


def test_the_command_takes_them_all(settings, rkstore, tmp_path):
    store = settings().store
    words = ("train", store, "--layer", 1, "--hook", "mlp.hook_in", "--d-sae", 40, "--k", 4)
    words += ("--steps", 6, "--batch-size", 32, "--out", tmp_path / "out")
    more = ("--controls", "--clip", 1, "--ema", 0.9, "--k-start", 9, "--k-anneal-steps", 3)
    status, out, err = rkstore(*words, "--name", "start", *more)
    assert status == 0, err
    paths = out.split()
    assert len(paths) == 4
    begin = ("--from", paths[0], "--lr-schedule", "cosine", "--decay", 1, "--sparsity-warmup", 3)
    status, out, err = rkstore(*words, "--name", "more", *begin, "--init", "tied")
    assert status == 0, err
    assert "--sparsity-warmup has no effect with a topk code" in err
    assert "--init has no effect with --from" in err
    status, _, err = rkstore(*words, "--name", "start", "--clip", 0)
    assert status == 2
    assert "rkstore: --clip is 0: it must be above 0" in err
