"""Dictionaries that SAELens wrote: read right without it, or refused, whatever is altered."""

import json
import shutil
from pathlib import Path

import altered
import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings

GOLDEN = Path(__file__).parents[1] / "golden" / "dictionaries"
KEPT = sorted(path.parent.name for path in GOLDEN.glob("saelens-*/made.json"))
READS, WRITES = "blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out"


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", KEPT)
def test_codes_and_reconstructions_are_those_of_saelens(name):
    dictionary, metadata = load_dictionary(GOLDEN / name)
    expected = load_file(GOLDEN / name / "expected.safetensors")
    with torch.no_grad():
        f, y = dictionary.reconstruct(expected["x"])
    close(f, expected["f"])
    close(y, expected["y"])
    assert metadata["model_name"] == "gpt2"
    assert [site.hook_name for site in dictionary.wiring.sites] == (
        [READS, WRITES] if "transcoder" in name else [READS]
    )


def test_fvu_and_l0_are_those_of_saelens(make_store):
    """Every architecture and normalisation in one table, to five digits."""
    kept = {name: load_file(GOLDEN / name / "expected.safetensors") for name in KEPT}
    x = kept["saelens-transcoder"]["x"]
    rows, y = len(x), kept["saelens-transcoder"]["target"]
    # Each chunk has all rows, so those that are held out do, too.
    store, _ = make_store(
        sites={READS: x.shape[1], WRITES: y.shape[1]},
        rows=20 * rows,
        shard_rows=10 * rows,
        chunk_rows=rows,
        values={READS: x.repeat(20, 1).numpy(), WRITES: y.repeat(20, 1).numpy()},
        source={"model": {"name": "gpt2", "revision": None}},
    )
    results = evaluate([GOLDEN / name for name in KEPT], EvaluateSettings(store=str(store.root)))
    for name, result in zip(KEPT, results, strict=True):
        expected = json.loads((GOLDEN / name / "made.json").read_text("utf-8"))
        assert result.fvu == pytest.approx(expected["fvu"], rel=1e-5), name
        assert result.l0 == pytest.approx(expected["l0"], rel=1e-5), name
    matryoshka = results[KEPT.index("saelens-matryoshka_batchtopk")].of_prefix
    assert [prefix.share for prefix in matryoshka] == [0.25, 0.5, 1]


@pytest.mark.parametrize("name", ["matching_pursuit", "temporal"])
def test_what_rkstore_cannot_hold_is_refused_with_the_reason(name):
    with pytest.raises(BadInput, match=f"architecture is '{name}', which rkstore cannot hold: it"):
        load_dictionary(GOLDEN / f"saelens-{name}")


CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SIZES = "in sae_weights.safetensors is .* by its configuration"
JUMPRELU, TOPK, WHITE, SKIP = (
    "saelens-jumprelu",
    "saelens-topk",
    "saelens-topk-covariance_whitening",
    "saelens-jumprelu_skip_transcoder",
)

# Directory, file, alteration, and what the refusal says.
ALTERED = {
    "architecture of another": (
        *(JUMPRELU, CFG, altered.key("architecture", value="standard")),
        "has a threshold, whose effect is not known",
    ),
    "architecture with more": (
        *(TOPK, CFG, altered.key("architecture", value="jumprelu")),
        "which a jumprelu dictionary does not have",
    ),
    "architecture unheard of": (
        *(JUMPRELU, CFG, altered.key("architecture", value="crosscoder")),
        "architecture is 'crosscoder': rkstore reads",
    ),
    "d_in": (JUMPRELU, CFG, altered.key("d_in", value=9), f"W_enc {SIZES}|b_dec {SIZES}|{SIZES}"),
    "d_sae": (JUMPRELU, CFG, altered.key("d_sae", value=23), SIZES),
    "d_sae huge": (JUMPRELU, CFG, altered.key("d_sae", value=altered.HUGE), SIZES),
    "d_sae no number": (JUMPRELU, CFG, altered.key("d_sae", value=24.5), "d_sae is 24.5, not a"),
    "d_out": (SKIP, CFG, altered.key("d_out", value=8), SIZES),
    "k above the latents": (TOPK, CFG, altered.key("k", value=25), "1 to the 24 latents"),
    "k of nothing": (TOPK, CFG, altered.key("k", value=0), "k is 0"),
    "k of another": (JUMPRELU, CFG, altered.key("k", value=0), "k is 0, which a jumprelu"),
    "b_dec of a transcoder": (
        *(SKIP, CFG, altered.key("apply_b_dec_to_input", value=True)),
        "apply_b_dec_to_input is true",
    ),
    "b_dec by a word": (
        *(TOPK, CFG, altered.key("apply_b_dec_to_input", value="yes")),
        "apply_b_dec_to_input is 'yes': rkstore reads True, False",
    ),
    "normalisation without its file": (
        *(TOPK, CFG, altered.key("normalize_activations", value="expected_average_only_in")),
        "scaling_factor in activation_scaler.json is None|the factor is not there",
    ),
    "normalisation unheard of": (
        *(TOPK, CFG, altered.key("normalize_activations", value="batch")),
        "normalize_activations is 'batch'",
    ),
    "reshape": (
        *(TOPK, CFG, altered.key("reshape_activations", value="hook_q")),
        "reshape_activations is 'hook_q'",
    ),
    "dtype": (TOPK, CFG, altered.key("dtype", value="int8"), "dtype is 'int8'"),
    "a key unheard of": (TOPK, CFG, altered.key("gain", value=2), "gain is 2, whose effect"),
    "a head": (
        *(TOPK, CFG, altered.key("metadata", "hook_head_index", value=-1)),
        "hook_head_index is -1",
    ),
    "written elsewhere": (
        *(TOPK, CFG, altered.key("metadata", "hook_name_out", value=WRITES)),
        "hook_name_out is 'blocks.0.hook_mlp_out'",
    ),
    "a hook that is no name": (
        *(TOPK, CFG, altered.key("metadata", "hook_name", value=3)),
        "hook_name is 3, not the name",
    ),
    "no configuration": (TOPK, CFG, altered.text("[1, 2]"), "cfg.json is not an object"),
    "no JSON": (TOPK, CFG, altered.text("{"), "cannot read the dictionary"),
    "tensor missing": (JUMPRELU, WEIGHTS, altered.missing("threshold"), "has no threshold"),
    "tensor extra": (JUMPRELU, WEIGHTS, altered.extra(), "has a b_extra, whose effect"),
    "tensor renamed": (SKIP, WEIGHTS, altered.renamed("W_skip", "skip"), "has no W_skip"),
    "W_dec transposed": (JUMPRELU, WEIGHTS, altered.transposed("W_dec"), f"W_dec {SIZES}"),
    "W_skip transposed": (SKIP, WEIGHTS, altered.transposed("W_skip"), f"W_skip {SIZES}"),
    "W_enc wider": (JUMPRELU, WEIGHTS, altered.wider("W_enc"), f"W_enc {SIZES}"),
    "threshold wider": (JUMPRELU, WEIGHTS, altered.wider("threshold"), f"threshold {SIZES}"),
    "W_enc flat": (JUMPRELU, WEIGHTS, altered.flat("W_enc"), f"W_enc {SIZES}"),
    "NaN": (JUMPRELU, WEIGHTS, altered.with_value("b_dec", float("nan")), "b_dec holds values"),
    "infinite": (SKIP, WEIGHTS, altered.with_value("W_skip", float("inf")), "W_skip holds values"),
    "whole numbers": (JUMPRELU, WEIGHTS, altered.of_dtype("W_enc", torch.int8), "W_enc .* is int8"),
    "huge by its header": (JUMPRELU, WEIGHTS, altered.huge_header("W_dec"), "cannot read"),
    "truncated": (JUMPRELU, WEIGHTS, altered.truncated, "cannot read the dictionary"),
    "a pickle": (JUMPRELU, WEIGHTS, altered.with_code, "cannot read the dictionary"),
    "whitening of another width": (
        *(WHITE, "activation_whitening.safetensors", altered.wider("mean")),
        "mean in activation_whitening.safetensors is 9, and 8",
    ),
    "whitening without its inverse": (
        *(WHITE, "activation_whitening.safetensors", altered.missing("inverse_matrix")),
        "has no inverse_matrix",
    ),
    "scale below zero": (
        *("saelens-topk-expected_average_only_in", "activation_scaler.json"),
        altered.key("scaling_factor", value=-1.0),
        "scaling_factor in activation_scaler.json is -1.0",
    ),
}


@pytest.mark.parametrize(("name", "file", "alter", "said"), ALTERED.values(), ids=ALTERED)
def test_an_altered_file_is_refused_by_name(tmp_path, name, file, alter, said):
    path = shutil.copytree(GOLDEN / name, tmp_path / name)
    alter(path / file)
    with pytest.raises(BadInput, match=said):
        load_dictionary(path)
    assert not altered.ran(path / file).exists()


# Alterations that change no number, or the one that they say: file, alteration, and the factor by
# which the reconstruction becomes that of other rows.
HARMLESS = {
    "device": (CFG, altered.key("device", value="cuda")),
    "flat rows of heads": (CFG, altered.key("reshape_activations", value="hook_z")),
    "how it was trained": (CFG, altered.key("l1_coefficient", value=3)),
    "the dtype by its long name": (CFG, altered.key("dtype", value="torch.float32")),
    "no dtype": (CFG, altered.without_key("dtype")),
    "no context size": (CFG, altered.without_key("metadata", "context_size")),
    "in double precision": (WEIGHTS, altered.of_dtype("W_dec", torch.float64)),
}


@pytest.mark.parametrize(("file", "alter"), HARMLESS.values(), ids=HARMLESS)
def test_an_alteration_without_effect_changes_no_number(tmp_path, file, alter):
    path = shutil.copytree(GOLDEN / JUMPRELU, tmp_path / "altered")
    alter(path / file)
    expected = load_file(path / "expected.safetensors")
    dictionary, _ = load_dictionary(path)
    with torch.no_grad():
        close(dictionary(expected["x"]), expected["y"])


@pytest.mark.parametrize("key", ["apply_b_dec_to_input", "normalize_activations"])
def test_a_key_that_has_an_effect_changes_the_numbers(tmp_path, key):
    path = shutil.copytree(GOLDEN / JUMPRELU, tmp_path / "altered")
    value = {"apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}[key]
    altered.key(key, value=value)(path / CFG)
    expected = load_file(path / "expected.safetensors")
    dictionary, _ = load_dictionary(path)
    with torch.no_grad():
        assert (dictionary(expected["x"]) - expected["y"]).abs().max() > 1e-3
