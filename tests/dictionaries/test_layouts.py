"""Layouts: what each writes, for every dictionary that it holds, and that it reads the same again.

The schemas are those of the programs' own files (``golden/dictionaries``).
"""

import json

import pytest
import torch
import yaml
from made import LATENTS, LAYERS, D, K, made, rows
from safetensors.torch import load_file

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.disk import save_dictionary
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.errors import BadInput

METADATA = {"model_name": "gpt2", "context_size": 128}
WIDTHS = {"training_architecture_details": {"matryoshka_widths": [2, 5, LATENTS]}}
d, F = D, LATENTS

LINEAR = {"encoder.weight": (F, d), "encoder.bias": (F,), "decoder.weight": (d, F)}
MATRICES = {"W_enc": (d, F), "b_enc": (F,), "W_dec": (F, d), "b_dec": (d,)}
GATES = {"r_mag": (F,), "gate_bias": (F,), "mag_bias": (F,), "decoder_bias": (d,)}
CODER = {"encoder.weight": (F, d), "encoder.bias": (F,), "W_dec": (F, d), "b_dec": (d,)}
TRANSCODER = {"W_enc": (F, d), "b_enc": (F,), "W_dec": (F, d), "b_dec": (d,)}
CROSS = {
    "encoder.weight": (LAYERS, d, F),
    "encoder.bias": (F,),
    "decoder.weight": (LAYERS, F, d),
    "decoder.bias": (LAYERS, d),
    "code_normalization_id": (),
    "activation_mean": (LAYERS, d),
    "activation_std": (LAYERS, d),
    "activation_global_scale": (),
    "target_rms": (),
}
OF_K = {"k": (), "threshold": ()}


def layers(shapes):
    return {f"layer_{i}.safetensors": shapes for i in range(LAYERS)}


def clt(**more):
    """The files of a cross-layer transcoder."""
    files = {}
    for i in range(LAYERS):
        named = {"W_enc": (F, d), "b_enc": (F,), "b_dec": (d,)} | more
        files[f"W_enc_{i}.safetensors"] = {f"{name}_{i}": shape for name, shape in named.items()}
        files[f"W_dec_{i}.safetensors"] = {f"W_dec_{i}": (F, LAYERS - i, d)}
    return files


THRESHOLD = {"activation_function.threshold": (F,)}

# Layout, dictionary, what is on record, and the tensors of each file.
HELD = [
    ("dictionary-learning", {"unit": True}, {}, {"ae.pt": LINEAR | {"bias": (d,)}}),
    ("dictionary-learning", {}, {}, {"ae.pt": LINEAR | {"decoder.bias": (d,)}}),
    ("dictionary-learning", {"norm": "sae"}, {}, {"ae.pt": LINEAR | {"decoder.bias": (d,)}}),
    (
        "dictionary-learning",
        {"select": "topk"},
        {},
        {"ae.pt": LINEAR | {"b_dec": (d,)} | OF_K},
    ),
    (
        "dictionary-learning",
        {"select": "batchtopk"},
        {},
        {"ae.pt": LINEAR | {"b_dec": (d,)} | OF_K},
    ),
    (
        "dictionary-learning",
        {"select": "batchtopk"},
        WIDTHS,
        {"ae.pt": MATRICES | OF_K | {"group_sizes": (3,)}},
    ),
    (
        "dictionary-learning",
        {"select": "batchtopk", "norm": "sae"},
        {},
        {"ae.pt": MATRICES | {"threshold": (F,)}},
    ),
    ("dictionary-learning", {"select": "jumprelu"}, {}, {"ae.pt": MATRICES | {"threshold": (F,)}}),
    (
        "dictionary-learning",
        {"select": "gated"},
        {},
        {"ae.pt": {"encoder.weight": (F, d), "decoder.weight": (d, F)} | GATES},
    ),
    ("crosscoder", {"wiring": "crosscoder"}, {}, {"model.safetensors": CROSS}),
    *(
        (
            "crosscoder",
            {"wiring": "crosscoder", "select": "batchtopk", "norm": norm},
            {},
            {"model.safetensors": CROSS | OF_K},
        )
        for norm in ("none", "sae", "crosscoder", "mixed")
    ),
    (
        "crosscoder",
        {"wiring": "crosscoder", "select": "batchtopk", "norm": "decoupled"},
        {},
        {"model.safetensors": CROSS | {"k": (), "threshold": (LAYERS,)}},
    ),
    ("sparsify", {"select": "topk"}, {}, {"sae.safetensors": CODER}),
    ("sparsify", {"wiring": "transcoder", "select": "topk"}, {}, {"sae.safetensors": CODER}),
    (
        "sparsify",
        {"wiring": "transcoder", "select": "topk", "skip": True},
        {},
        {"sae.safetensors": CODER | {"W_skip": (d, d)}},
    ),
    (
        "sparsify",
        {"wiring": "per-layer", "select": "topk"},
        {},
        {f"blocks.{i}.hook_mlp_out/sae.safetensors": CODER for i in range(LAYERS)},
    ),
    ("circuit-tracer", {"wiring": "per-layer"}, {}, layers(TRANSCODER)),
    (
        "circuit-tracer",
        {"wiring": "per-layer", "skip": True},
        {},
        layers(TRANSCODER | {"W_skip": (d, d)}),
    ),
    (
        "circuit-tracer",
        {"wiring": "per-layer", "select": "jumprelu"},
        {},
        layers(TRANSCODER | THRESHOLD),
    ),
    (
        "circuit-tracer",
        {"wiring": "per-layer", "select": "batchtopk"},
        {},
        layers(TRANSCODER | THRESHOLD),
    ),
    (
        "circuit-tracer",
        {"wiring": "per-layer", "select": "batchtopk", "norm": "sae"},
        {},
        layers(TRANSCODER | THRESHOLD),
    ),
    (
        "circuit-tracer",
        {"wiring": "transcoder", "first": 8},
        {},
        {"layer_8.safetensors": TRANSCODER},
    ),
    ("circuit-tracer", {"wiring": "clt"}, {}, clt()),
    ("circuit-tracer", {"wiring": "clt", "select": "jumprelu"}, {}, clt(threshold=(F,))),
    ("circuit-tracer", {"wiring": "clt", "select": "batchtopk"}, {}, clt(threshold=(F,))),
    (
        "circuit-tracer",
        {"wiring": "clt", "select": "batchtopk", "norm": "crosscoder"},
        {},
        clt(threshold=(F,)),
    ),
]
NAMES = [f"{layout}-{'-'.join(map(str, kind.values()))}" for layout, kind, _, _ in HELD]


def tensors(path):
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


@pytest.mark.parametrize(("layout", "kind", "record", "files"), HELD, ids=NAMES)
def test_the_files_have_the_tensors_of_the_program(tmp_path, layout, kind, record, files):
    save_dictionary(made(**kind), tmp_path, METADATA | record, layout)
    found = {
        path.relative_to(tmp_path).as_posix(): tensors(path)
        for path in tmp_path.rglob("*")
        if path.suffix in (".pt", ".safetensors")
    }
    assert {name: {k: tuple(x.shape) for k, x in w.items()} for name, w in found.items()} == files
    whole = {"k": torch.int32, "group_sizes": torch.int64, "code_normalization_id": torch.int64}
    for w in found.values():
        assert all(x.dtype == whole.get(name, torch.float32) for name, x in w.items())
        assert all(x.is_contiguous() for x in w.values())


@pytest.mark.parametrize(("layout", "kind", "record", "files"), HELD, ids=NAMES)
def test_what_is_written_is_read_the_same(tmp_path, layout, kind, record, files):  # noqa: ARG001
    dictionary = made(**kind)
    save_dictionary(dictionary, tmp_path, METADATA | record, layout)
    again, metadata = load_dictionary(tmp_path)
    x = rows(dictionary)
    with torch.no_grad():
        (f, y), (f_again, y_again) = dictionary.reconstruct(x), again.reconstruct(x)
    torch.testing.assert_close(f_again, f, atol=1e-5, rtol=1e-5)
    assert y.keys() == y_again.keys()
    for name in y:
        torch.testing.assert_close(y_again[name], y[name], atol=1e-5, rtol=1e-5)
    assert (f != 0).any()
    assert metadata["model_name"] == "gpt2"


def test_every_layout_is_tested_or_only_reads(tmp_path):
    written = {layout for layout, *_ in HELD} | {"saelens", "rkstore"}
    for name, layout in LAYOUTS.items():
        if name not in written:
            with pytest.raises(BadInput, match=f"{name} cannot hold .*only reads"):
                save_dictionary(made(), tmp_path, {}, name)
            assert layout().refuses(made()) == "rkstore only reads this layout"


REFUSED = [
    ("dictionary-learning", {"select": "abstopk"}, "has no abstopk"),
    ("dictionary-learning", {"select": "topk", "norm": "sae"}, "topk ranks by decoder norms"),
    ("dictionary-learning", {"wiring": "transcoder"}, "only autoencoders"),
    ("crosscoder", {}, "only crosscoders"),
    ("crosscoder", {"wiring": "dfc"}, "latents are of all sites"),
    ("crosscoder", {"wiring": "crosscoder", "select": "jumprelu"}, "only relu and batchtopk"),
    ("sparsify", {}, "has only topk"),
    ("sparsify", {"select": "topk", "norm": "sae"}, "by pre-activations alone"),
    ("sparsify", {"wiring": "clt", "select": "topk"}, "compete within their hookpoint"),
    ("sparsify", {"wiring": "crosscoder", "select": "topk"}, "each latent reads one site"),
    ("circuit-tracer", {}, "only transcoders, one for each layer"),
    ("circuit-tracer", {"wiring": "crosscoder"}, "only transcoders, one for each layer"),
    ("circuit-tracer", {"wiring": "per-layer", "select": "topk"}, "topk has no threshold"),
    ("circuit-tracer", {"wiring": "clt", "select": "gated"}, "gated has no threshold"),
    ("circuit-tracer", {"wiring": "per-layer", "first": 2}, "every layer from 0 on"),
]


@pytest.mark.parametrize(("layout", "kind", "said"), REFUSED)
def test_what_a_layout_cannot_hold_is_refused_with_the_reason(tmp_path, layout, kind, said):
    with pytest.raises(BadInput, match=f"{layout} cannot hold this dictionary: .*{said}"):
        save_dictionary(made(**kind), tmp_path, METADATA, layout)
    assert not list(tmp_path.iterdir())


def test_dictionary_learning_has_the_keys_that_its_readers_need(tmp_path):
    save_dictionary(made(select="topk", first=4), tmp_path, METADATA, "dictionary-learning")
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["trainer"] == {
        "dict_class": "AutoEncoderTopK",
        "activation_dim": d,
        "dict_size": F,
        "k": K,
        "layer": 4,
        "lm_name": "gpt2",
        "submodule_name": "blocks.4.hook_resid_mid",
    }
    assert config["buffer"] == {"ctx_len": 128, "io": "out"}


def test_sparsify_has_the_keys_that_its_readers_need(tmp_path):
    kind = {"wiring": "transcoder", "select": "topk", "skip": True}
    save_dictionary(made(**kind), tmp_path, METADATA, "sparsify")
    config = json.loads((tmp_path / "cfg.json").read_text("utf-8"))
    stated = {"hook_name": "blocks.0.hook_resid_mid", "hook_name_out": "blocks.0.hook_mlp_out"}
    assert config == {
        "activation": "topk",
        "expansion_factor": 1,
        "normalize_decoder": False,
        "num_latents": F,
        "k": K,
        "multi_topk": False,
        "skip_connection": True,
        "transcode": True,
        "d_in": d,
        "metadata": METADATA | stated,
    }


@pytest.mark.parametrize(
    ("wiring", "kind"), [("per-layer", "transcoder_set"), ("clt", "cross_layer_transcoder")]
)
def test_circuit_tracer_has_the_hooks_of_every_layer(tmp_path, wiring, kind):
    save_dictionary(made(wiring=wiring), tmp_path, METADATA, "circuit-tracer")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8")) == {
        "model_name": "gpt2",
        "model_kind": kind,
        "feature_input_hook": "hook_resid_mid",
        "feature_output_hook": "hook_mlp_out",
    }


def test_batchtopk_leaves_for_circuit_tracer_with_one_threshold_for_all_latents(tmp_path):
    dictionary = made(wiring="clt", select="batchtopk")
    save_dictionary(dictionary, tmp_path, METADATA, "circuit-tracer")
    theta = dictionary.pools[0].get_buffer("threshold")
    for i in range(LAYERS):
        found = load_file(tmp_path / f"W_enc_{i}.safetensors")[f"threshold_{i}"]
        assert torch.equal(found, theta.expand(F))


def test_a_matryoshka_keeps_its_widths_through_dictionary_learning(tmp_path):
    save_dictionary(made(select="batchtopk"), tmp_path, METADATA | WIDTHS, "dictionary-learning")
    _, metadata = load_dictionary(tmp_path)
    assert metadata["training_architecture_details"] == WIDTHS["training_architecture_details"]
