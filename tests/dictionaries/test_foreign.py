"""Checkpoints that others wrote: what their ``cfg.json`` says is what is computed, or refused."""

import json
import random
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rkstore.dictionaries import load_dictionary, save_dictionary
from rkstore.dictionaries.layouts.saelens_config import (
    ARCHITECTURES,
    AVERAGE,
    CHOICES,
    DTYPES,
    METADATA,
    NOT_A_ROW,
    NUMBERS,
    OF_TRANSCODERS,
    UNLIKE,
    WHITENED,
    WITH_K,
    WITHOUT_EFFECT,
)
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings

PYTHON = Path(__file__).parents[2] / ".venv-saelens" / "bin" / "python"

D_IN, D_OUT, D_SAE, K, SCALE = 12, 9, 40, 5, 0.25
METADATA_OF_ALL = {"model_name": "gpt2", "hook_name": "blocks.0.hook_z", "sae_lens_version": "6.0"}

TRANSCODERS = [name for name, found in ARCHITECTURES.items() if found.transcoder]


def plain(name):
    """A plain one of an architecture, to which a test adds."""
    if name in TRANSCODERS:
        out = METADATA_OF_ALL | {"hook_name_out": "blocks.0.hook_mlp_out"}
        more = {"d_out": D_OUT, "apply_b_dec_to_input": False, "metadata": out}
        return {"architecture": name} | more
    return {"architecture": name} | ({"k": K} if name in WITH_K else {})


PLAIN = {name: plain(name) for name in ARCHITECTURES}


def has(architecture, key, value):
    """Whether an architecture can have a value of a key."""
    if key == "rescale_acts_by_decoder_norm":
        return architecture in WITH_K
    if architecture in TRANSCODERS:
        return (key, value) != ("apply_b_dec_to_input", True) and value != WHITENED
    return True


# Every value of every key, with each architecture that has it.
ALONE = [
    PLAIN[architecture] | {key: value}
    for key, values in CHOICES.items()
    if key not in ("architecture", "activation_fn")
    for value in values
    for architecture in ARCHITECTURES
    if has(architecture, key, value)
]


def together(seed):
    """A configuration in which every key is chosen at random."""
    chosen = {key: random.Random(f"{seed}{key}").choice(CHOICES[key]) for key in CHOICES}
    architecture = chosen["architecture"]
    chosen = {key: value for key, value in chosen.items() if has(architecture, key, value)}
    chosen.pop("activation_fn")
    return PLAIN[architecture] | chosen


def make_tensors(config, seed=0):
    """Weights of a dictionary whose decoder has rows of every length."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    d_out = config.get("d_out") or D_IN
    tensors = {
        "W_enc": randn(D_IN, D_SAE),
        "b_enc": randn(D_SAE),
        "W_dec": randn(D_SAE, d_out) * torch.linspace(0.2, 3, D_SAE).unsqueeze(1),
        "b_dec": randn(d_out),
    }
    architecture = ARCHITECTURES[config["architecture"]]
    if architecture.select == "jumprelu":
        tensors["threshold"] = randn(D_SAE).abs()
    if architecture.skip:
        tensors["W_skip"] = randn(d_out, D_IN)
    if config["architecture"] == "gated":
        tensors["b_gate"] = tensors.pop("b_enc")
        tensors |= {"b_mag": randn(D_SAE), "r_mag": randn(D_SAE) / 2}
    if config.get("finetuning_scaling_factor"):
        tensors["scaling_factor"] = 1 + randn(D_SAE).abs()
    return tensors


def whitening():
    """A mean, a matrix that whitens, and its inverse, as SAELens keeps them."""
    generator = torch.Generator().manual_seed(2)
    rotation = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator)).Q
    sizes = torch.linspace(0.5, 2, D_IN)
    return {
        "mean": torch.randn(D_IN, generator=generator),
        "matrix": (rotation / sizes).contiguous(),
        "inverse_matrix": (sizes.unsqueeze(1) * rotation.T).contiguous(),
    }


def write(directory, config, tensors=None):
    """The checkpoint of that configuration, as SAELens lays it out."""
    directory.mkdir(exist_ok=True)
    document = {"d_in": D_IN, "d_sae": D_SAE, "metadata": METADATA_OF_ALL} | config
    (directory / "cfg.json").write_text(json.dumps(document))
    save_file(
        make_tensors(config) if tensors is None else tensors, directory / "sae_weights.safetensors"
    )
    (directory / "activation_scaler.json").write_text(json.dumps({"scaling_factor": SCALE}))
    if config.get("normalize_activations") == WHITENED:
        save_file(whitening(), directory / "activation_whitening.safetensors")
    return directory


def make_rows():
    """Rows of different size, the last of which is zero."""
    x = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(1)) * 3 + 1
    return x * torch.arange(30).flip(0).unsqueeze(1) / 10


def reference(config, x):
    """Code and reconstruction by the definitions, in float64."""
    dtype = getattr(torch, DTYPES[config.get("dtype", "float32")])
    w = {k: t.to(dtype).double().numpy() for k, t in make_tensors(config).items()}
    x, norm = x.double().numpy(), config.get("normalize_activations", "none")
    architecture = ARCHITECTURES[config["architecture"]]
    shift, divisor, factor = 0.0, 1.0, 1.0
    map_in, map_out = np.eye(D_IN), np.eye(D_IN)
    if norm == "layer_norm":
        shift, factor = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
        divisor = factor + 1e-5
    elif norm == "constant_norm_rescale":
        factor = np.linalg.norm(x, axis=-1, keepdims=True) / D_IN**0.5
        divisor = np.where(factor == 0, 1, factor)
    elif norm == AVERAGE:
        divisor = factor = 1 / SCALE
    elif norm == WHITENED:
        shift, map_in, map_out = (t.double().numpy() for t in whitening().values())
    centred = config.get("apply_b_dec_to_input", True)
    z = ((x - shift) / divisor) @ map_in - (w["b_dec"] if centred else 0)
    gated = config["architecture"] == "gated"
    pre = z @ w["W_enc"] + w["b_gate" if gated else "b_enc"]
    # SAELens folds the factor into the weights, by which the code of this kind is divided.
    average = factor if norm == AVERAGE else 1.0
    norms = np.linalg.norm(w["W_dec"], axis=1) * average
    rescale = config.get("rescale_acts_by_decoder_norm", False)
    pre = pre * norms if rescale else pre
    if config["architecture"] == "topk":
        smallest = np.sort(pre, axis=1)[:, -K][:, None]
        f = np.where(pre >= smallest, pre, 0).clip(0)
    elif config["architecture"] == "abstopk":
        smallest = np.sort(np.abs(pre), axis=1)[:, -K][:, None]
        f = np.where(np.abs(pre) >= smallest, pre, 0)
    elif gated:
        f = (pre > 0) * (z @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"]).clip(0)
    else:
        f = pre.clip(0) * (pre > w.get("threshold", 0))
    code = f / norms if rescale else f
    code = code * w.get("scaling_factor", 1)
    y = code @ w["W_dec"] + w["b_dec"]
    if architecture.transcoder:  # what it writes are other rows, which nobody normalised
        return f, y * average + (x @ w["W_skip"].T if architecture.skip else 0)
    return f, (y @ map_out) * factor + shift


def same(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected).float(), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("config", [*ALONE, *map(together, range(30))], ids=repr)
def test_what_a_configuration_says_is_what_is_computed(tmp_path, config):
    dictionary, _ = load_dictionary(write(tmp_path, config))
    with torch.no_grad():
        f, reconstruction = dictionary.reconstruct(make_rows())
    same(f, reference(config, make_rows())[0])
    same(reconstruction, reference(config, make_rows())[1])


@pytest.mark.parametrize("config", ALONE, ids=repr)
def test_a_loaded_dictionary_that_is_saved_loads_the_same(tmp_path, config):
    dictionary, metadata = load_dictionary(write(tmp_path / "theirs", config))
    (tmp_path / "ours").mkdir()
    save_dictionary(dictionary, tmp_path / "ours", metadata)
    again, _ = load_dictionary(tmp_path / "ours")
    if config["architecture"] == "gated":  # the biases are those of other terms: gated.py
        same(again(make_rows()), dictionary(make_rows()))
    else:
        assert torch.equal(again(make_rows()), dictionary(make_rows()))


CHANGED = [
    {"apply_b_dec_to_input": False},
    {"normalize_activations": AVERAGE},
    {"normalize_activations": WHITENED},
    {"normalize_activations": "layer_norm"},
    {"normalize_activations": "constant_norm_rescale"},
    {"rescale_acts_by_decoder_norm": True},
    {"dtype": "bfloat16"},
]


@pytest.mark.parametrize("change", CHANGED, ids=repr)
def test_a_key_that_changes_a_value_changes_it(tmp_path, change):
    plain, _ = load_dictionary(write(tmp_path / "plain", PLAIN["topk"]))
    other, _ = load_dictionary(write(tmp_path / "other", PLAIN["topk"] | change))
    assert (plain(make_rows()) - other(make_rows())).abs().max() > 1e-3


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_how_it_was_trained_changes_nothing(tmp_path, key):
    plain, _ = load_dictionary(write(tmp_path / "plain", PLAIN["topk"]))
    other, _ = load_dictionary(write(tmp_path / "other", PLAIN["topk"] | {key: 7}))
    assert torch.equal(plain(make_rows()), other(make_rows()))


@pytest.mark.parametrize("key", ["unheard_of", "d_out", "hook_layer_out", "use_error_term"])
def test_a_key_that_is_not_known_is_refused_by_name(tmp_path, key):
    with pytest.raises(BadInput, match=f"{key} is 7, whose effect is not known"):
        load_dictionary(write(tmp_path, PLAIN["topk"] | {key: 7}))


@pytest.mark.parametrize("key", sorted(CHOICES))
@pytest.mark.parametrize("value", ["unheard_of", 3, [1], {"k": 1}], ids=repr)
def test_a_value_that_is_not_known_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(BadInput, match=f"{key} is .*: rkstore reads "):
        load_dictionary(write(tmp_path, PLAIN["topk"] | {key: value}, make_tensors(PLAIN["topk"])))


@pytest.mark.parametrize("key", NOT_A_ROW)
@pytest.mark.parametrize("where", ["flat", "metadata"])
def test_a_dictionary_of_something_else_than_rows_is_refused_by_name(tmp_path, key, where):
    change = {key: 3} if where == "flat" else {"metadata": {key: 3}}
    with pytest.raises(BadInput, match=f"{key} is 3: .* whole rows"):
        load_dictionary(write(tmp_path, PLAIN["topk"] | change))


@pytest.mark.parametrize("head", [-1, "3", 1.0, True])
def test_a_head_that_cannot_be_is_refused(tmp_path, head):
    change = {"metadata": METADATA_OF_ALL | {"hook_head_index": head}}
    with pytest.raises(BadInput, match=r"hook_head_index is .*no head"):
        load_dictionary(write(tmp_path, PLAIN["topk"] | change, make_tensors(PLAIN["topk"])))


CONTRADICTIONS = [
    (PLAIN["standard"] | {"k": 5}, "k is 5, which a standard dictionary does not have"),
    (
        PLAIN["jumprelu"] | {"rescale_acts_by_decoder_norm": True},
        "which a jumprelu dictionary does not have",
    ),
    (
        PLAIN["transcoder"] | {"apply_b_dec_to_input": True},
        "apply_b_dec_to_input is true, which a transcoder dictionary does not have",
    ),
    (PLAIN["transcoder"] | {"d_out": None}, "d_out is None, not a whole number"),
    (PLAIN["jumprelu"] | {"activation_fn": "topk"}, "which a jumprelu dictionary does not have"),
    (PLAIN["standard"] | {"activation_fn": "topk"}, "which a standard dictionary does not have"),
    (PLAIN["topk"] | {"activation_fn_kwargs": {"k": 6}}, "k is 5, and 6 in activation_fn_kwargs"),
    (PLAIN["topk"] | {"activation_fn_kwargs": {"p": 6}}, "activation_fn_kwargs is .* reads k"),
    (PLAIN["topk"] | {"hook_name": "other"}, "hook_name is 'other', and 'blocks.0.hook_z' in"),
    (PLAIN["topk"] | {"hook_point": "a", "hook_name": "a"}, "a key under two names"),
    (PLAIN["topk"] | {"d_in": "12"}, "d_in is '12', not a whole number"),
    (PLAIN["topk"] | {"metadata": [1]}, "metadata is not an object"),
]


@pytest.mark.parametrize(
    ("config", "said"), CONTRADICTIONS, ids=[said for _, said in CONTRADICTIONS]
)
def test_a_configuration_that_contradicts_itself_is_refused(tmp_path, config, said):
    with pytest.raises(BadInput, match=said):
        load_dictionary(write(tmp_path, config))


def test_a_normalised_dictionary_without_its_factor_is_refused(tmp_path):
    write(tmp_path, PLAIN["topk"] | {"normalize_activations": AVERAGE})
    (tmp_path / "activation_scaler.json").unlink()
    with pytest.raises(
        BadInput, match=rf"normalize_activations is '{AVERAGE}'.*factor is not there"
    ):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("scaler", [None, {"scaling_factor": None, "has_whitening": False}])
def test_a_whitened_dictionary_without_its_matrix_is_refused(tmp_path, scaler):
    write(tmp_path, PLAIN["topk"] | {"normalize_activations": WHITENED})
    if scaler is None:
        (tmp_path / "activation_whitening.safetensors").unlink()
    else:
        (tmp_path / "activation_scaler.json").write_text(json.dumps(scaler))
    with pytest.raises(BadInput, match=f"'{WHITENED}', and the matrix is not there"):
        load_dictionary(tmp_path)


def test_a_whitened_transcoder_is_refused(tmp_path):
    write(tmp_path, PLAIN["transcoder"] | {"normalize_activations": WHITENED})
    with pytest.raises(BadInput, match=f"'{WHITENED}', which has no meaning for what a transcoder"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("architecture", sorted(UNLIKE))
def test_an_architecture_that_rkstore_cannot_hold_is_refused_with_the_reason(
    tmp_path, architecture
):
    write(tmp_path, {"architecture": architecture, "n_heads": 8}, make_tensors(PLAIN["topk"]))
    with pytest.raises(BadInput, match=f"'{architecture}', which rkstore cannot hold: it") as error:
        load_dictionary(tmp_path)
    assert UNLIKE[architecture] in str(error.value)


def test_a_transcoder_reads_and_writes_what_its_metadata_says(tmp_path):
    dictionary, _ = load_dictionary(write(tmp_path, PLAIN["transcoder"]))
    assert [site.hook_name for site in dictionary.wiring.sites] == [
        "blocks.0.hook_z",
        "blocks.0.hook_mlp_out",
    ]


def test_a_flat_transcoder_is_read_as_it_was_meant(tmp_path):
    flat = {key: value for key, value in PLAIN["transcoder"].items() if key != "metadata"}
    flat |= {"hook_point": "a", "hook_name_out": "b", "hook_layer_out": 0}
    flat |= {"hook_head_index_out": None, "metadata": {}}
    dictionary, _ = load_dictionary(write(tmp_path, flat, make_tensors(PLAIN["transcoder"])))
    assert [site.hook_name for site in dictionary.wiring.sites] == ["a", "b"]
    with torch.no_grad():
        same(dictionary(make_rows()), reference(PLAIN["transcoder"], make_rows())[1])


def test_a_head_of_what_a_transcoder_writes_is_its_site(tmp_path):
    said = {"hook_name": "a", "hook_name_out": "blocks.0.attn.hook_z", "hook_head_index_out": 2}
    dictionary, _ = load_dictionary(write(tmp_path, PLAIN["transcoder"] | {"metadata": said}))
    assert dictionary.wiring.writes[0].hook_name == "blocks.0.attn.hook_z.h2"


def test_sites_that_a_file_does_not_name_are_given(tmp_path):
    write(tmp_path, PLAIN["transcoder"] | {"metadata": {}})
    dictionary, _ = load_dictionary(tmp_path, hook_name="a", hook_name_out="b")
    assert [site.hook_name for site in dictionary.wiring.sites] == ["a", "b"]
    unnamed, _ = load_dictionary(tmp_path)
    assert [site.hook_name for site in unnamed.wiring.sites] == ["x", "y"]
    write(tmp_path, PLAIN["transcoder"])
    with pytest.raises(BadInput, match=r"it is of blocks\.0\.hook_z, not of a"):
        load_dictionary(tmp_path, hook_name="a")


def test_a_module_of_transformers_is_a_hook_if_that_is_certain(tmp_path):
    def of(module):
        return write(tmp_path, PLAIN["topk"] | {"metadata": {"hf_hook_name": module}})

    found, _ = load_dictionary(of("model.layers.3"))
    assert found.wiring.reads[0].hook_name == "blocks.3.hook_resid_post"
    with pytest.raises(BadInput, match=r"it is of model\.layers\.3\.mlp, and which hook that is"):
        load_dictionary(of("model.layers.3.mlp"))
    found, _ = load_dictionary(tmp_path, hook_name="blocks.3.hook_mlp_out")
    assert found.wiring.reads[0].hook_name == "blocks.3.hook_mlp_out"


def test_a_file_from_before_version_6_means_that_texts_begin_with_bos(tmp_path):
    assert load_dictionary(write(tmp_path, FLAT, make_tensors(PLAIN["topk"])))[1]["prepend_bos"]
    assert "prepend_bos" not in load_dictionary(write(tmp_path, PLAIN["topk"]))[1]


@pytest.mark.parametrize("layout", [None, "saelens"])
def test_a_file_from_before_version_6_is_saved_as_one_of_version_6(tmp_path, layout):
    """SAELens would look for its metadata outside "metadata"."""
    old = write(tmp_path / "old", FLAT | {"sae_lens_version": "3.1"}, make_tensors(PLAIN["topk"]))
    dictionary, metadata = load_dictionary(old)
    (tmp_path / "new").mkdir()
    save_dictionary(dictionary, tmp_path / "new", metadata, layout)
    said = json.loads((tmp_path / "new" / "cfg.json").read_text("utf-8"))["metadata"]
    assert (said["sae_lens_version"], said["model_name"]) == ("6.0.0", "gpt2-small")


def test_a_number_that_json_does_not_have_is_taken_as_not_said(tmp_path):
    write(tmp_path / "old", PLAIN["topk"] | {"metadata": METADATA_OF_ALL | {"l0": float("nan")}})
    dictionary, metadata = load_dictionary(tmp_path / "old")
    assert metadata["l0"] is None
    (tmp_path / "new").mkdir()
    save_dictionary(dictionary, tmp_path / "new", metadata)


def test_of_a_directory_of_several_dictionaries_one_is_to_be_named(tmp_path):
    ids = ["blocks.0.hook_z", "layer_1/width_40/average_l0_5"]
    for name in ids:
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name, PLAIN["topk"])
    with pytest.raises(BadInput, match=f"several dictionaries: give one of {', '.join(ids)}"):
        load_dictionary(tmp_path)
    load_dictionary(tmp_path / ids[1])


def test_a_factor_that_is_not_asked_for_is_refused_unless_it_is_one(tmp_path):
    tensors = make_tensors(PLAIN["topk"])
    write(tmp_path, PLAIN["topk"], tensors | {"scaling_factor": torch.ones(D_SAE)})
    load_dictionary(tmp_path)
    write(tmp_path, PLAIN["topk"], tensors | {"scaling_factor": torch.full((D_SAE,), 2.0)})
    with pytest.raises(BadInput, match="finetuning_scaling_factor is false"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, name, value):
    tensors = make_tensors(PLAIN["jumprelu"])
    tensors[name].view(-1)[3] = value
    with pytest.raises(BadInput, match=f"{name} holds values that are not finite"):
        load_dictionary(write(tmp_path, PLAIN["jumprelu"], tensors))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(tmp_path, dtype):
    tensors = {name: t.to(dtype) for name, t in make_tensors(PLAIN["topk"]).items()}
    dictionary, _ = load_dictionary(write(tmp_path, PLAIN["topk"], tensors))
    assert dictionary.W_dec.dtype == torch.float32
    assert torch.equal(dictionary.W_dec, tensors["W_dec"].float())


FLAT = {
    "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "hook_point_head_index": None,
    "dataset_path": "Skylion007/openwebtext",
    "context_size": 128,
    "dtype": "torch.float32",
    "device": "cuda",
    "l1_coefficient": 8e-05,
    "normalize_activations": False,
    "metadata": {},
}


FLAT_ONES = [
    (FLAT, "standard"),
    (FLAT | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}, "topk"),
    (FLAT | {"activation_fn": "relu", "finetuning_scaling_factor": False}, "standard"),
]


@pytest.mark.parametrize(("layout", "architecture"), FLAT_ONES)
def test_the_flat_layout_is_read_as_it_was_meant(tmp_path, layout, architecture):
    tensors = make_tensors(PLAIN[architecture])
    dictionary, metadata = load_dictionary(write(tmp_path, layout, tensors))
    same(dictionary(make_rows()), reference(PLAIN[architecture], make_rows())[1])
    assert metadata["hook_name"] == "blocks.8.hook_resid_pre"
    assert metadata["model_name"] == "gpt2-small"


# SAELens computes in the precision of its weights, and has no tuned factors any more.
COMPARED = [
    config
    for config in [*ALONE, *map(together, range(30))]
    if config.get("dtype", "float32") in ("float32", "torch.float32")
    and not config.get("finetuning_scaling_factor")
]

PROGRAM = textwrap.dedent("""
    import json, sys
    import torch
    from dataclasses import fields
    from pathlib import Path
    from safetensors.torch import load_file, save_file
    from sae_lens import SAE
    from sae_lens.config import LanguageModelSAERunnerConfig
    from sae_lens.evals import ExplainedVarianceCalculator
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS
    from sae_lens.registry import get_sae_class, get_sae_training_class

    root, architectures, trained = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
    rows, numbers = load_file(root / "rows.safetensors"), {}
    x = rows["x"]
    for path in sorted(root.glob("sae_*")):
        sae = SAE.load_from_disk(path, device="cpu")
        if sae.cfg.normalize_activations == "expected_average_only_in":
            scale = json.loads((path / "activation_scaler.json").read_text())["scaling_factor"]
            sae.fold_activation_norm_scaling_factor(scale)
        if sae.cfg.normalize_activations == "covariance_whitening":
            w = load_file(path / "activation_whitening.safetensors")
            sae.fold_activation_whitening(w["mean"], w["matrix"], w["inverse_matrix"])
        sae.turn_off_forward_pass_hook_z_reshaping()
        with torch.no_grad():
            found = {"f": sae.encode(x).contiguous(), "x": sae(x).contiguous()}
        save_file(found, path / "out.safetensors")
        variance = ExplainedVarianceCalculator()
        variance.add_batch(found["x"], rows["y"] if hasattr(sae.cfg, "d_out") else x)
        l0 = (found["f"] != 0).sum(dim=-1).double().mean().item()
        numbers[path.name] = 1 - variance.compute(), l0
    known = {field.name for field in fields(LanguageModelSAERunnerConfig)} - {"sae"}
    known |= set(LLM_METADATA_KEYS)
    for name in architectures:
        known |= {field.name for field in fields(get_sae_class(name)[1])}
    for name in trained:
        known |= {field.name for field in fields(get_sae_training_class(name)[1])}
    print(json.dumps({"known": sorted(known), "numbers": numbers}))
""")


@pytest.mark.skipif(not PYTHON.exists(), reason="no SAELens: 'make saelens' installs it")
def test_saelens_knows_no_key_that_is_not_known_here_and_computes_the_same(tmp_path, make_store):
    """Codes, reconstructions, FVU and L0; a row of norm 0 is left out: SAELens divides by it."""
    x = make_rows()[:-1].contiguous()
    y = torch.randn(len(x), D_OUT, generator=torch.Generator().manual_seed(3)) * 3 + 1
    save_file({"x": x, "y": y}, tmp_path / "rows.safetensors")
    paths = [
        write(tmp_path / f"sae_{i:03}", {"dtype": "float32"} | c) for i, c in enumerate(COMPARED)
    ]
    flat = [
        write(tmp_path / f"sae_flat_{i}", layout, make_tensors(PLAIN[architecture]))
        for i, (layout, architecture) in enumerate(FLAT_ONES)
    ]
    trained = [name for name in ARCHITECTURES if name not in TRANSCODERS]
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, tmp_path, " ".join(ARCHITECTURES), " ".join(trained)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    known = {*CHOICES, *NUMBERS, *OF_TRANSCODERS, *METADATA, *NOT_A_ROW, *WITHOUT_EFFECT}
    assert set(said["known"]) <= known | {"metadata"}
    for path in [*paths, *flat]:
        dictionary, _ = load_dictionary(path)
        theirs = load_file(path / "out.safetensors")
        with torch.no_grad():
            f, reconstruction = dictionary.reconstruct(x)
        same(f, theirs["f"])
        same(reconstruction, theirs["x"])
    # Each chunk has all rows, so those that are held out do, too.
    store, _ = make_store(
        sites={"blocks.0.hook_z": D_IN, "blocks.0.hook_mlp_out": D_OUT},
        rows=20 * len(x),
        shard_rows=10 * len(x),
        chunk_rows=len(x),
        values={
            "blocks.0.hook_z": x.repeat(20, 1).numpy(),
            "blocks.0.hook_mlp_out": y.repeat(20, 1).numpy(),
        },
        source={"model": {"name": "gpt2", "revision": None}},
    )
    results = evaluate(paths, EvaluateSettings(store=str(store.root)))
    for path, config, result in zip(paths, COMPARED, results, strict=True):
        expected = said["numbers"][path.name]
        assert [result.fvu, result.l0] == pytest.approx(expected, rel=1e-5), config
