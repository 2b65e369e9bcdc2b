"""Gemma Scope 1 and 2: files as Google published them, in small, by their definitions.

``f = [z > θ] · ReLU(z)`` with ``z = x W_enc + b_enc``, ``y = f W_dec + b_dec``, and with an affine
connection ``+ x W``. circuit-tracer, where it is installed, computes the same.
"""

import json
import subprocess

import altered
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_layout_peers import PYTHON, close, installed

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput

D, F, LAYERS = 6, 10, 3
GEMMA_3 = {"model_name": "google/gemma-3-270m-pt", "architecture": "jump_relu", "l0": 150}
OUT = "model.layers.5.output"
PRE, POST = (
    "model.layers.{}." + f"{name}_feedforward_layernorm.output" for name in ("pre", "post")
)


def drawn(seed=0, **shapes):
    generator = torch.Generator().manual_seed(seed)
    w = {name: torch.randn(shape, generator=generator) / 2 for name, shape in shapes.items()}
    w["threshold"] = w["threshold"].abs()
    return w


def one(seed=0, names=("w_enc", "w_dec"), skip=False):
    """The tensors of an autoencoder or a transcoder."""
    shapes = {names[0]: (D, F), names[1]: (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
    return drawn(seed, **shapes, **({"affine_skip_connection": (D, D)} if skip else {}))


def write_1(directory, w=None):
    """``params.npz`` as in google/gemma-scope-2b-pt-res."""
    directory.mkdir(parents=True, exist_ok=True)
    w = one(names=("W_enc", "W_dec")) if w is None else w
    np.savez(directory / "params.npz", **{name: x.numpy() for name, x in w.items()})
    return directory


def write_2(directory, kind="sae", reads=OUT, writes=OUT, skip=False):
    """``params.safetensors`` and ``config.json`` as in google/gemma-scope-2-270m-pt."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"hf_hook_point_in": reads, "hf_hook_point_out": writes, "width": F, "type": kind}
    config |= GEMMA_3 | {"affine_connection": skip}
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(one(skip=skip), directory / "params.safetensors")
    return directory


def layers(kind="clt", skip=False, causal=True):
    """The tensors of each layer."""
    found = []
    for s in range(LAYERS):
        shapes = {"w_enc": (D, F), "w_dec": (F, LAYERS, D), "b_enc": (F,), "b_dec": (D,)}
        more = {"affine_skip_connection": (D, D)} if skip else {}
        w = drawn(s, **shapes, threshold=(F,), **more)
        if causal and kind == "clt":
            w["w_dec"][:, :s] = 0
        found.append(w)
    return found


def write_layers(directory, kind="clt", skip=False, causal=True):
    """One ``params_layer_{i}.safetensors`` a layer, as in its clt and crosscoder folders."""
    directory.mkdir(parents=True, exist_ok=True)
    layer = {"clt": "{all}", "crosscoder": "{5,9,12}"}[kind]
    ends = (PRE, POST) if kind == "clt" else ("model.layers.{}.output",) * 2
    reads, writes = (end.replace("{}", layer) for end in ends)
    config = {"hf_hook_point_in": reads, "hf_hook_point_out": writes, "type": kind}
    config |= GEMMA_3 | {"affine_connection": skip, "width": F * LAYERS}
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    for s, w in enumerate(layers(kind, skip, causal)):
        save_file(w, directory / f"params_layer_{s}.safetensors")
    return directory


def rows(*shape):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(9)) + 0.5


def by_definition(w, x):
    """Code and reconstruction, in float64."""
    w = {name.lower(): tensor.double() for name, tensor in w.items()}
    x = x.double()
    z = x @ w["w_enc"] + w["b_enc"]
    f = z.relu() * (z > w["threshold"])
    y = f @ w["w_dec"] + w["b_dec"]
    skip = w.get("affine_skip_connection")
    return f.float(), (y if skip is None else y + x @ skip).float()


def of_layers(parts, x):
    """Codes side by side, and the reconstruction of each layer."""
    fs, ys = [], [part["b_dec"].double() for part in parts]
    for s, part in enumerate(parts):
        f, _ = by_definition(part | {"w_dec": part["w_dec"][:, 0], "b_dec": part["b_dec"]}, x[s])
        fs.append(f)
        for t in range(LAYERS):
            ys[t] = ys[t] + f.double() @ part["w_dec"][:, t].double()
        if "affine_skip_connection" in part:
            ys[s] = ys[s] + x[s].double() @ part["affine_skip_connection"].double()
    return torch.cat(fs, dim=-1), torch.stack(ys).float()


def computed(dictionary, x):
    with torch.no_grad():
        return dictionary.reconstruct(x)


def computed_by_layer(dictionary, x):
    sites = [site.hook_name for site in dictionary.wiring.reads]
    f, y = computed(dictionary, dict(zip(sites, x, strict=True)))
    return f, torch.stack([y[site.hook_name] for site in dictionary.wiring.writes])


def agree(found, expected):
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def test_an_autoencoder_of_the_first_does_not_subtract_b_dec(tmp_path):
    dictionary, _ = load_dictionary(write_1(tmp_path))
    agree(computed(dictionary, rows(20)), by_definition(one(names=("W_enc", "W_dec")), rows(20)))


PLACES = [
    ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", "blocks.20.hook_resid_post"),
    ("models--google--gemma-scope-9b-pt-mlp/snapshots/0a1b", "layer_3", "blocks.3.hook_mlp_out"),
    ("gemma-scope-2b-it-att", "layer_0/width_16k", "blocks.0.attn.hook_z"),
    ("mine", "layer_20", "x"),
]


@pytest.mark.parametrize(("repository", "inside", "site"), PLACES)
def test_the_site_of_the_first_is_in_the_name_of_the_repository(tmp_path, repository, inside, site):
    dictionary, metadata = load_dictionary(write_1(tmp_path / repository / inside))
    assert dictionary.wiring.reads[0].hook_name == site
    assert metadata.get("hook_name", "x") == site


def test_a_transcoder_of_the_first_is_told_by_the_repository_and_needs_its_sites(tmp_path):
    place = write_1(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3")
    with pytest.raises(BadInput, match="it is a transcoder: give the hook"):
        load_dictionary(place)
    dictionary, _ = load_dictionary(place, hook_name="a", hook_name_out="b")
    agree(computed(dictionary, rows(20)), by_definition(one(names=("W_enc", "W_dec")), rows(20)))
    assert [site.hook_name for site in dictionary.wiring.sites] == ["a", "b"]


def test_one_of_embeddings_is_refused(tmp_path):
    with pytest.raises(BadInput, match="embeddings before they are scaled"):
        load_dictionary(write_1(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k"))


def test_a_factor_of_ones_is_read_and_another_refused(tmp_path):
    w = one(names=("W_enc", "W_dec"))
    load_dictionary(write_1(tmp_path, w | {"scaling_factor": torch.ones(F)}))
    with pytest.raises(BadInput, match=r"scaling_factor in params\.npz is not 1"):
        load_dictionary(write_1(tmp_path, w | {"scaling_factor": torch.full((F,), 2.0)}))


HOOKS = [
    (OUT, "blocks.5.hook_resid_post"),
    ("model.layers.17.self_attn.o_proj.input", "blocks.17.attn.hook_z"),
    (POST.replace("{}", "2"), "blocks.2.hook_mlp_out"),
]


@pytest.mark.parametrize(("words", "site"), HOOKS)
def test_an_autoencoder_of_the_second_is_of_the_hook_that_its_module_is(tmp_path, words, site):
    dictionary, metadata = load_dictionary(write_2(tmp_path, reads=words, writes=words))
    agree(computed(dictionary, rows(20)), by_definition(one(), rows(20)))
    assert dictionary.wiring.reads[0].hook_name == metadata["hook_name"] == site
    assert metadata["model_name"] == "google/gemma-3-270m-pt"


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_of_the_second_has_its_affine_connection_transposed(tmp_path, skip):
    ends = [end.replace("{}", "5") for end in (PRE, POST)]
    dictionary, _ = load_dictionary(write_2(tmp_path, "transcoder", *ends, skip))
    agree(computed(dictionary, rows(20)), by_definition(one(skip=skip), rows(20)))
    sites = [site.hook_name for site in dictionary.wiring.sites]
    assert sites == ["blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out"]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_a_cross_layer_transcoder_writes_this_and_later_layers(tmp_path, skip, causal):
    dictionary, _ = load_dictionary(write_layers(tmp_path, skip=skip, causal=causal))
    parts, x = layers(skip=skip, causal=causal), rows(LAYERS, 20)
    agree(computed_by_layer(dictionary, x), of_layers(parts, x))
    widths = [len(bank.writes) for bank in dictionary.wiring.banks]
    assert widths == ([3, 2, 1] if causal else [3, 3, 3])
    assert dictionary.wiring.reads[2].hook_name == "blocks.2.mlp.hook_in"


def test_a_crosscoder_writes_the_layers_that_it_reads(tmp_path):
    dictionary, _ = load_dictionary(write_layers(tmp_path, "crosscoder"))
    x = rows(LAYERS, 20)
    agree(computed_by_layer(dictionary, x), of_layers(layers("crosscoder"), x))
    names = [site.hook_name for site in dictionary.wiring.sites]
    assert names == [f"blocks.{layer}.hook_resid_post" for layer in (5, 9, 12)]


SIZES = "by its configuration"
ALTERED_1 = {
    "missing": (altered.missing("threshold"), "has no threshold"),
    "extra": (altered.extra(), "has a b_extra, whose effect"),
    "transposed": (altered.transposed("W_dec"), f"W_dec in params.npz .* {SIZES}"),
    "encoder transposed": (altered.transposed("W_enc"), SIZES),
    "wider": (altered.wider("b_enc"), f"b_enc in params.npz is 11, and 10 {SIZES}"),
    "encoder wider": (altered.wider("W_enc"), SIZES),
    "flat": (altered.flat("W_enc"), "W_enc in params.npz is no matrix"),
    "NaN": (altered.with_value("W_enc", float("nan")), "W_enc holds values"),
    "infinite": (altered.with_value("threshold", float("inf")), "threshold holds values"),
    "whole": (altered.of_dtype("b_dec", torch.int8), "b_dec in params.npz is int8"),
    "truncated": (altered.truncated, "is no archive, or truncated"),
    "a pickle": (altered.with_code, "holds Python objects"),
    "no archive": (altered.text("no arrays"), "is no archive"),
}


@pytest.mark.parametrize(("alter", "said"), ALTERED_1.values(), ids=ALTERED_1)
def test_an_altered_file_of_the_first_is_refused(tmp_path, alter, said):
    file = write_1(tmp_path) / "params.npz"
    alter(file)
    with pytest.raises(BadInput, match=said):
        load_dictionary(tmp_path)
    assert not altered.ran(file).exists()


def test_arrays_that_are_packed_to_nothing_are_refused_before_memory_is_taken(tmp_path):
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros((1000, 1000), np.float32))
    with pytest.raises(BadInput, match="much smaller than its arrays"):
        load_dictionary(tmp_path)


CONFIG, WEIGHTS = "config.json", "params.safetensors"
ALTERED_2 = {
    "architecture": (CONFIG, altered.key("architecture", value="topk"), "architecture is 'topk'"),
    "width": (CONFIG, altered.key("width", value=11), "width is 11, and it has 10 latents"),
    "affine": (CONFIG, altered.key("affine_connection", value=True), "no affine_skip_connection"),
    "affine word": (CONFIG, altered.key("affine_connection", value="no"), "affine_connection is"),
    "type": (CONFIG, altered.key("type", value="transcoder"), "type is 'transcoder'"),
    "clt": (CONFIG, altered.key("type", value="clt"), "type is 'clt'"),
    "other output": (CONFIG, altered.key("hf_hook_point_out", value="y"), "type is 'sae'"),
    "hook": (CONFIG, altered.key("hf_hook_point_in", value=3), "type is 'sae'|the name of a hook"),
    "more": (CONFIG, altered.key("normalize", value=True), "normalize is True, whose effect"),
    "no object": (CONFIG, altered.text("[1]"), "config.json is not an object"),
    "no JSON": (CONFIG, altered.text("{"), "cannot read the dictionary"),
    "missing": (WEIGHTS, altered.missing("b_enc"), "has no b_enc"),
    "extra": (WEIGHTS, altered.extra("affine_skip_connection"), "affine_skip_connection, whose"),
    "transposed": (WEIGHTS, altered.transposed("w_dec"), SIZES),
    "wider": (WEIGHTS, altered.wider("threshold"), f"threshold .* is 11, and 10 {SIZES}"),
    "NaN": (WEIGHTS, altered.with_value("b_dec", float("nan")), "b_dec holds values"),
    "whole": (WEIGHTS, altered.of_dtype("w_enc", torch.int8), "w_enc .* is int8"),
    "huge": (WEIGHTS, altered.huge_header("w_enc"), "cannot read the dictionary"),
    "truncated": (WEIGHTS, altered.truncated, "cannot read the dictionary"),
    "a pickle": (WEIGHTS, altered.with_code, "cannot read the dictionary"),
}


@pytest.mark.parametrize(("file", "alter", "said"), ALTERED_2.values(), ids=ALTERED_2)
def test_an_altered_file_of_the_second_is_refused(tmp_path, file, alter, said):
    alter(write_2(tmp_path) / file)
    with pytest.raises(BadInput, match=said):
        load_dictionary(tmp_path)
    assert not altered.ran(tmp_path / file).exists()


def test_a_layer_that_is_missing_is_refused(tmp_path):
    (write_layers(tmp_path) / "params_layer_1.safetensors").unlink()
    with pytest.raises(BadInput, match="not one for each layer from 0 on"):
        load_dictionary(tmp_path)


def test_layers_that_the_configuration_does_not_count_are_refused(tmp_path):
    write_layers(tmp_path, "crosscoder")
    altered.key("hf_hook_point_in", value="model.layers.{5,9}.output")(tmp_path / CONFIG)
    with pytest.raises(BadInput, match="is of 2 layers, and it has 3 files"):
        load_dictionary(tmp_path)


PROGRAM = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from circuit_tracer.transcoder import single_layer_transcoder as single
from circuit_tracer.transcoder.cross_layer_transcoder import load_gemma_scope_2_clt
root, plain = Path(sys.argv[1]), {"device": torch.device("cpu"), "dtype": torch.float32}
x = load_file(root / "x.safetensors")["x"]
out = {}
made = {
    "1": single.load_gemma_scope_transcoder(str(root / "1" / "params.npz"), 0, **plain),
    "2": single.load_gemma_scope_2_transcoder(str(root / "2" / "params.safetensors"), 0, **plain),
}
for name, one in made.items():
    f = one.encode(x[0])
    out |= {f"f{name}": f, f"y{name}": one.decode(f, x[0])}
# It leaves out the last of the paths.
paths = {i: str(root / "clt" / f"params_layer_{i}.safetensors") for i in range(len(x))}
clt = load_gemma_scope_2_clt(paths | {len(x): ""}, **plain)
f = clt.encode(x)
out |= {"f": torch.cat(list(f), dim=-1), "y": clt.decode(f, x)}
save_file({k: v.detach().contiguous() for k, v in out.items()}, root / "out.safetensors")
"""


@pytest.mark.skipif(not PYTHON.exists(), reason="no peers: 'make peers' installs them")
def test_circuit_tracer_computes_the_same(tmp_path):
    if not installed("circuit-tracer"):
        pytest.skip("no circuit-tracer: 'make peers' installs it")
    ends = [end.replace("{}", "5") for end in (PRE, POST)]
    write_1(tmp_path / "1")
    write_2(tmp_path / "2", "transcoder", *ends, skip=True)
    write_layers(tmp_path / "clt", skip=True)
    x = rows(LAYERS, 20)
    save_file({"x": x}, tmp_path / "x.safetensors")
    done = subprocess.run([PYTHON, "-c", PROGRAM, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = load_file(tmp_path / "out.safetensors")
    first, _ = load_dictionary(tmp_path / "1", hook_name="a", hook_name_out="b")
    agree(computed(first, x[0]), (theirs["f1"], theirs["y1"]))
    agree(computed(load_dictionary(tmp_path / "2")[0], x[0]), (theirs["f2"], theirs["y2"]))
    clt, _ = load_dictionary(tmp_path / "clt")
    agree(computed_by_layer(clt, x), (theirs["f"], theirs["y"]))
