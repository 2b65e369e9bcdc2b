"""The page for those who come from another library: its names are right, and so are its factors.

The others run in environments of their own, without rkstore: ``make saelens``, ``make peers``.
"""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rkstore.cli import cli
from rkstore.dictionaries import Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.evaluation.measure import Measure
from rkstore.harvest.load import EMBEDDED_PATH
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.objective import Objective

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("console", ROOT / "docs/console.py")
console = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(console)

SAELENS = ROOT / ".venv-saelens/bin/python"
PEERS = ROOT / ".venv-peers/bin/python"
needs_saelens = pytest.mark.skipif(not SAELENS.exists(), reason="'make saelens' installs SAELens")
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="'make peers' installs them")

PAGE = (ROOT / "docs/coming.md").read_text("utf-8")
TABLES = ("SAELens", "dictionary_learning", "nnsight")
D_IN, D_SAE, K, ROWS = 12, 40, 5, 64


def section(library):
    """The part of the page about a library, without what is run."""
    text = PAGE.split(f"\n## {library}\n")[1].split("\n## ")[0]
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def spans(library, column):
    """What a column of a library's table has in code."""
    rows = [row.split("|") for row in section(library).splitlines() if row.startswith("| ")][1:]
    cells = [row[column] for row in rows]
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


def ask(python, program, *words, said=None):
    """What a program of ``peers/`` prints, if it prints anything, from JSON."""
    done = subprocess.run(
        [python, ROOT / "tests/peers" / program, *map(str, words)],
        input=json.dumps(said, allow_nan=False),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


@needs_saelens
def test_saelens_has_every_name_with_that_default():
    assert ask(SAELENS, "names.py", "sae_lens", said=spans("SAELens", 1)) == []


@needs_peers
def test_dictionary_learning_has_every_name_with_that_default():
    names = spans("dictionary_learning", 1)
    assert ask(PEERS, "names.py", "dictionary_learning", said=names) == []


def test_rkstore_has_every_option_that_the_page_names():
    options = [option for name in cli.commands for option in cli.commands[name].params]
    flags = {flag for option in options for flag in [*option.opts, *option.secondary_opts]}
    named = {flag for name in TABLES for flag in re.findall(r"--[a-z][a-z0-9-]*", section(name))}
    assert len(named) > 40
    assert named <= flags


def weights(seed=0):
    """Of a dictionary with a unit decoder, whose first half of latents is on for most rows."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=generator), dim=1)
    W_enc = torch.randn(D_IN, D_SAE, generator=generator)
    b_enc = torch.where(torch.arange(D_SAE) < D_SAE // 2, 4.0, 0.0)
    return {
        "W_enc": W_enc,
        "b_enc": b_enc,
        "W_dec": W_dec,
        "b_dec": torch.randn(D_IN, generator=generator),
        "x": torch.randn(ROWS, D_IN, generator=generator),
    }


def ours(w, select, helpers=(), rows=ROWS, dead=None, **options):
    """The losses of the same weights in rkstore."""
    dictionary = Dictionary.of_site(D_IN, D_SAE, select_named(select, options))
    state = {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    kept = {f"select.{name}": x for name, x in dictionary.pools[0].state_dict().items()}
    dictionary.load_state_dict(dictionary.state_dict() | state | kept)
    dead = torch.zeros(D_SAE, dtype=torch.bool) if dead is None else dead
    losses, now = Objective(helpers=helpers)(dictionary, {"x": w["x"][:rows]}, dead)
    return {name: loss.item() for name, loss in losses.items()}, now


@pytest.fixture(scope="module")
def in_saelens(tmp_path_factory):
    """The losses of SAELens, by name of what was asked."""
    file = tmp_path_factory.mktemp("saelens") / "w.safetensors"
    save_file(weights(), file)
    jumprelu = {"jumprelu_init_threshold": 0.5, "jumprelu_bandwidth": 1.0, "target_l0": 8.0}
    asked = {
        "standard": ("standard", {}, ROWS, False),
        "gated": ("gated", {}, ROWS, False),
        "topk": ("topk", {"k": K}, ROWS, True),
    }
    for mode, rows in (("step", ROWS), ("tanh", ROWS), ("quadratic", 1)):
        asked[mode] = "jumprelu", jumprelu | {"jumprelu_sparsity_loss_mode": mode}, rows, False
    names = ("architecture", "options", "rows", "dead")
    said = [dict(zip(names, one, strict=True)) for one in asked.values()]
    return dict(zip(asked, ask(SAELENS, "saelens_losses.py", file, said=said), strict=True))


@needs_saelens
def test_errors_and_l1_of_saelens_are_ours(in_saelens):
    found, _ = ours(weights(), "relu", l1=0.3)
    assert in_saelens["standard"]["mse_loss"] == pytest.approx(found["reconstruction"], rel=1e-5)
    assert in_saelens["standard"]["l1_loss"] == pytest.approx(found["l1"], rel=1e-5)


@needs_saelens
def test_losses_of_gates_of_saelens_are_ours(in_saelens):
    found, _ = ours(weights(), "gated", l1=0.3)
    theirs = in_saelens["gated"]
    assert theirs["l1_loss"] == pytest.approx(found["l1"], rel=1e-5)
    assert theirs["auxiliary_reconstruction_loss"] == pytest.approx(found["gates"], rel=1e-5)


@needs_saelens
@pytest.mark.parametrize(
    ("sparsity", "rows", "factor"), [("step", ROWS, 1), ("tanh", ROWS, 1), ("quadratic", 1, 2 * 8)]
)
def test_l0_of_saelens_is_ours_times_the_factor_of_the_page(in_saelens, sparsity, rows, factor):
    options = {"l0": 0.3, "threshold": 0.5, "sparsity": sparsity, "target_l0": 8.0}
    found, _ = ours(weights(), "jumprelu", rows=rows, **options)
    assert in_saelens[sparsity]["l0_loss"] == pytest.approx(factor * found["l0"], rel=1e-5)


@needs_saelens
def test_auxk_of_saelens_is_ours_times_32_fvu(in_saelens):
    w, dead = weights(), torch.arange(D_SAE) < D_SAE // 2
    found, now = ours(w, "topk", [AuxK(auxk=D_IN // 2)], dead=dead, k=K)
    y, x = now.decoded["x"], now.rows["x"]
    fvu = ((x - y) - (x - y).mean(dim=0)).square().sum() / (x - x.mean(dim=0)).square().sum()
    theirs = in_saelens["topk"]["auxiliary_reconstruction_loss"]
    assert theirs == pytest.approx(32 * fvu.item() * found["auxk"], rel=1e-5)


@needs_saelens
def test_explained_variance_of_saelens_is_one_minus_our_fvu(in_saelens):
    w = weights()
    _, now = ours(w, "topk", k=K)
    measure = Measure(now.dictionary.eval())
    measure.add(w["x"])
    found = measure.result("x", {"x": 0.0}).explained_variance
    assert in_saelens["topk"]["explained_variance"] == pytest.approx(found, rel=1e-5)


@pytest.fixture(scope="module")
def in_peers(tmp_path_factory):
    """The losses of dictionary_learning."""
    file = tmp_path_factory.mktemp("peers") / "w.safetensors"
    save_file(weights(), file)
    return ask(PEERS, "dictionary_learning_losses.py", file, K)


@needs_peers
def test_errors_and_l1_of_dictionary_learning_are_ours(in_peers):
    found, _ = ours(weights(), "relu", l1=0.3)
    theirs = in_peers["standard"]
    assert theirs["mse_loss"] == pytest.approx(found["reconstruction"], rel=1e-5)
    assert 0.3 * theirs["sparsity_loss"] == pytest.approx(found["l1"], rel=1e-5)


@needs_peers
def test_l0_of_dictionary_learning_is_ours(in_peers):
    w = weights()
    w["b_enc"] = w["b_enc"] + w["b_dec"] @ w["W_enc"]  # its JumpReLU reads x, not x - b_dec
    options = {"l0": 0.3, "threshold": 0.5, "sparsity": "quadratic", "target_l0": 8.0}
    found, _ = ours(w, "jumprelu", **options)
    theirs = in_peers["jumprelu"]
    assert theirs["loss"] == pytest.approx(found["reconstruction"] + found["l0"], rel=1e-5)


@needs_peers
def test_auxk_of_dictionary_learning_is_ours_over_the_variance_of_a_row(in_peers):
    w, dead = weights(), torch.arange(D_SAE) < D_SAE // 2
    found, _ = ours(w, "topk", [AuxK(auxk=D_IN // 2)], dead=dead, k=K)
    variance = (w["x"] - w["x"].mean(dim=0)).square().sum().item() / ROWS
    assert in_peers["auxk"] * variance == pytest.approx(found["auxk"], rel=1e-5)


@needs_peers
def test_explained_variance_of_dictionary_learning_is_never_below_ours(in_peers):
    w = weights()
    _, now = ours(w, "topk", k=K)
    measure = Measure(now.dictionary.eval())
    measure.add(w["x"])
    found, theirs = measure.result("x", {"x": 0.0}), in_peers["evaluate"]
    error = w["x"] - now.decoded["x"]
    bias = ROWS * error.mean(dim=0).square().sum().item()
    fvu = (w["x"] - w["x"].mean(dim=0)).square().sum().item()
    expected = found.explained_variance + bias / fvu
    assert theirs["frac_variance_explained"] == pytest.approx(expected, rel=1e-4)
    assert theirs["frac_variance_explained"] > found.explained_variance
    assert theirs["l0"] == found.l0
    assert theirs["cossim"] == pytest.approx(found.cosine, rel=1e-5)
    assert theirs["l2_ratio"] == pytest.approx(found.norm_ratio, rel=1e-5)
    assert theirs["frac_alive"] == pytest.approx(1 - found.dead / D_SAE)


def test_a_dictionary_goes_to_dictionary_learning_and_back_as_the_page_says(tmp_path):
    w, path = weights(), tmp_path / "checkpoints/sae/demo/topk_60"
    _, now = ours(w, "topk", k=16)
    path.mkdir(parents=True)
    save_dictionary(now.dictionary, path, {"hook_name": "blocks.6.mlp.hook_post"})
    [commands] = [b[2] for b in console.blocks(PAGE) if "--to dictionary-learning" in b[2]]
    console.run("console", commands, tmp_path)
    back, metadata = load_dictionary(tmp_path / "back")
    assert metadata["hook_name"] == "blocks.6.mlp.hook_post"
    f, y = (x.detach() for x in (back.encode(w["x"]), back(w["x"])))
    assert torch.equal(f, now.f)
    assert torch.equal(y, now.decoded["x"])
    if PEERS.exists():
        save_file({"x": w["x"]}, tmp_path / "x.safetensors")
        files = [tmp_path / name for name in ("ae/ae.pt", "x.safetensors", "out.safetensors")]
        ask(PEERS, "load_ae.py", *files)
        theirs = load_file(files[2])
        torch.testing.assert_close(theirs["f"], f, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs["y"], y, atol=1e-5, rtol=1e-5)


@needs_peers
def test_a_trace_of_nnsight_holds_what_the_page_says(tmp_path):
    theirs = [span for span in spans("nnsight", 1) if span.startswith("model.")]
    hooks = [span for span in spans("nnsight", 2) if span.startswith("blocks.")]
    pairs = dict(zip(theirs, hooks, strict=True))
    settings = HarvestSettings(
        model="demo", dataset="python", layers="6", hook=tuple(hooks), tokens=256, codec="float32",
        out=str(tmp_path / "store"),
    )  # fmt: skip
    store = run(prepare(settings))
    files = [tmp_path / name for name in ("tokens.safetensors", "out.safetensors")]
    tokens = torch.from_numpy(store.column("token_id").astype("int64")).reshape(-1, 128)
    save_file({"tokens": tokens}, files[0])
    ask(PEERS, "trace.py", EMBEDDED_PATH, *files, said=list(pairs))
    for span, x in load_file(files[1]).items():
        here = torch.from_numpy(store.read(pairs[span]))
        torch.testing.assert_close(x.reshape(here.shape), here, atol=1e-4, rtol=1e-4)
