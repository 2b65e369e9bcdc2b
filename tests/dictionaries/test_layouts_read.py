"""What the files of other programs say and leave out: sites, and what changes a number."""

import json
import shutil

import altered
import pytest
import torch
from made import made, rows
from safetensors.torch import load_file, save_file
from test_golden_dictionaries import ROOT

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.disk import save_dictionary
from rkstore.dictionaries.layouts.hooks import hook_of
from rkstore.errors import BadInput


def copied(name, to):
    return shutil.copytree(ROOT / name, to)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


WORDS = [
    ("blocks.3.mlp.hook_post", "blocks.3.mlp.hook_post"),
    ("resid_post_layer_12", "blocks.12.hook_resid_post"),
    ("layers.10", "blocks.10.hook_resid_post"),
    ("model.layers.10", "blocks.10.hook_resid_post"),
    ("transformer.h.6", "blocks.6.hook_resid_post"),
    ("gpt_neox.layers.0", "blocks.0.hook_resid_post"),
    ("model.layers.17.output", "blocks.17.hook_resid_post"),
    # What these are depends on the model.
    ("layers.3.mlp", None),
    ("h.3.attn", None),
    ("layers.03", None),
    ("model.layers.3.input", None),
    ("embed_tokens", None),
    ("mlp_out_layer_3", None),
]


@pytest.mark.parametrize(("words", "hook"), WORDS)
def test_only_words_of_a_certain_meaning_are_translated(words, hook):
    assert hook_of(words) == hook


def test_a_folder_of_a_certain_hookpoint_is_its_site_and_another_needs_a_hook(tmp_path):
    resid = copied("sparsify-sae", tmp_path / "layers.10")
    assert load_dictionary(resid)[0].wiring.reads[0].hook_name == "blocks.10.hook_resid_post"
    mlp = copied("sparsify-sae", tmp_path / "layers.10.mlp")
    with pytest.raises(BadInput, match=r"it is of layers\.10\.mlp, and which hook"):
        load_dictionary(mlp)
    found, _ = load_dictionary(mlp, hook_name="blocks.10.hook_mlp_out")
    assert found.wiring.reads[0].hook_name == "blocks.10.hook_mlp_out"


def test_a_hook_that_contradicts_the_files_is_refused(tmp_path):
    resid = copied("sparsify-sae", tmp_path / "layers.10")
    with pytest.raises(BadInput, match=r"blocks\.10\.hook_resid_post, not of blocks\.3\.hook"):
        load_dictionary(resid, hook_name="blocks.3.hook_mlp_out")


def test_a_run_of_sparsify_is_a_bank_for_each_hookpoint_in_the_order_of_the_layers():
    wiring = load_dictionary(ROOT / "sparsify-run")[0].wiring
    assert [bank.reads[0].hook_name for bank in wiring.banks] == [
        "blocks.2.hook_resid_post",
        "blocks.10.hook_resid_post",
    ]
    assert not wiring.together


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_of_sparsify_before_it_said_transcode_subtracts_b_dec(tmp_path, skip):
    path = copied(f"sparsify-{'skip' if skip else 'transcoder'}", tmp_path / "early")
    altered.without_key("transcode")(path / "cfg.json")
    w = load_file(path / "sae.safetensors")
    x = load_file(path / "expected.safetensors")["x"]
    pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    values, chosen = pre.relu().topk(3)
    f = torch.zeros_like(pre).scatter(1, chosen, values)
    y = f @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0)
    dictionary, _ = load_dictionary(path, hook_name="a", hook_name_out="b")
    with torch.no_grad():
        f_found, y_found = dictionary.reconstruct(x)
    close(f_found, f)
    close(y_found, y)


def test_an_autoencoder_has_no_second_site(tmp_path):
    path = copied("sparsify-sae", tmp_path / "sae")
    altered.key("transcode", value=False)(path / "cfg.json")
    with pytest.raises(BadInput, match=r"transcode in cfg\.json is false"):
        load_dictionary(path, hook_name="a", hook_name_out="b")


def test_the_site_of_dictionary_learning_is_its_submodule():
    dictionary, metadata = load_dictionary(ROOT / "dictionary-learning-AutoEncoderTopK")
    assert dictionary.wiring.reads[0].hook_name == "blocks.2.hook_resid_post"
    assert metadata == {
        "model_name": "gpt2",
        "hook_name": "blocks.2.hook_resid_post",
        "context_size": 128,
    }


def test_an_autoencoder_is_read_at_decoder_rows_of_norm_1_as_its_program_does(tmp_path):
    path = copied("dictionary-learning-AutoEncoder", tmp_path / "ae")
    plain, _ = load_dictionary(path)
    altered.tensors(lambda w: w["decoder.weight"].mul_(3))(path / "ae.pt")
    longer, _ = load_dictionary(path)
    x = load_file(path / "expected.safetensors")["x"]
    with torch.no_grad():
        close(longer.encode(x), 3 * plain.encode(x))
    close(longer.W_dec.norm(dim=1), torch.ones(10))


def test_a_matryoshka_keeps_its_widths():
    for name in ("dictionary-learning-MatryoshkaBatchTopKSAE", "matryoshka-sae-transcoder"):
        _, metadata = load_dictionary(ROOT / name)
        widths = metadata["training_architecture_details"]["matryoshka_widths"]
        assert widths == [2, 5, 10]


@pytest.mark.parametrize("norm", ["mixed", "none", "crosscoder", "decoupled"])
def test_the_norm_of_a_crosscoder_is_that_of_its_number(norm):
    dictionary, _ = load_dictionary(ROOT / f"crosscoder-{norm}")
    assert dictionary.wiring.norm == norm


def test_a_crosscoder_takes_its_hooks_with_commas_between_them():
    names = "base:blocks.2.hook_resid_post,chat:blocks.2.hook_resid_post"
    dictionary, _ = load_dictionary(ROOT / "crosscoder-sae", hook_name=names)
    assert [site.hook_name for site in dictionary.wiring.reads] == names.split(",")
    with pytest.raises(BadInput, match="it is of 2 sites: give as many hooks"):
        load_dictionary(ROOT / "crosscoder-sae", hook_name="blocks.2.hook_resid_post")


def test_a_crosscoder_without_latents_of_the_first_site_keeps_its_biases(tmp_path):
    """The second site is then the first that a bank names."""
    path = copied("crosscoder-dedicated", tmp_path / "cc")

    def change(w):
        w["_partition_config"]["model_a_exclusive_pct"] = 0.0
        w["encoder.weight"][0, :, :2] = w["decoder.weight"][0, :2] = 0
        w["encoder.weight"][0, :, :3] = w["decoder.weight"][0, :3] = 0
        w["encoder.weight"][1, :, 3:5] = w["decoder.weight"][1, 3:5] = 1

    altered.tensors(change)(path / "model_final.pt")
    dictionary, _ = load_dictionary(path, hook_name="a,b")
    w = torch.load(path / "model_final.pt", weights_only=True)
    assert [site.hook_name for site in dictionary.wiring.writes] == ["b", "a"]
    x = load_file(path / "expected.safetensors")["x"]
    with torch.no_grad():
        f, y = dictionary.reconstruct({"a": x[0], "b": x[1]})
    for i, name in enumerate("ab"):
        close(y[name], f @ w["decoder.weight"][i] + w["decoder.bias"][i])


def test_topk_of_circuit_tracer_is_refused(tmp_path):
    """It keeps the k largest even where they are negative."""
    path = copied("circuit-tracer-set-relu", tmp_path / "set")
    with (path / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("activation: topk\nk: 3\n")
    with pytest.raises(BadInput, match="activation is topk, which there keeps the k largest"):
        load_dictionary(path)


def test_a_layer_that_is_missing_is_refused(tmp_path):
    path = copied("circuit-tracer-set-relu", tmp_path / "set")
    (path / "layer_1.safetensors").unlink()
    with pytest.raises(BadInput, match="not one for each layer from 0 on"):
        load_dictionary(path)


def test_the_sites_of_a_clt_are_the_hooks_of_every_layer():
    dictionary, metadata = load_dictionary(ROOT / "circuit-tracer-clt-relu")
    assert [site.hook_name for site in dictionary.wiring.reads] == [
        f"blocks.{i}.hook_resid_mid" for i in range(3)
    ]
    assert metadata == {"model_name": "gpt2"}


def test_the_sites_of_crosslayer_transcoder_are_given_by_the_part_after_the_block():
    path = ROOT / "crosslayer-transcoder-jumprelu"
    dictionary, _ = load_dictionary(path, hook_name="hook_resid_mid", hook_name_out="hook_mlp_out")
    assert dictionary.wiring.reads[1].hook_name == "blocks.1.hook_resid_mid"
    assert dictionary.wiring.banks[1].writes[0].hook_name == "blocks.1.hook_mlp_out"


def test_rows_that_are_standardised_one_by_one_are_refused(tmp_path):
    path = copied("crosslayer-transcoder-relu", tmp_path / "clt")
    text = (path / "config.yaml").read_text("utf-8")
    text = text.replace("DimensionwiseInputStandardizer", "SamplewiseInputStandardizer")
    (path / "config.yaml").write_text(text, "utf-8")
    with pytest.raises(BadInput, match=r"input_standardizer is .*Samplewise"):
        load_dictionary(path)


def test_of_two_autoencoders_of_an_experiment_one_is_chosen_by_its_layout(tmp_path):
    path = copied("rkcnn-sae-rkcnn_sae", tmp_path / "phase2")
    other = ROOT / "rkcnn-sae-baseline_sae" / "baseline_sae.pt"
    shutil.copy(other, path)
    with pytest.raises(BadInput, match=r"several layouts .*rkcnn-sae, rkcnn-sae-baseline"):
        load_dictionary(path)
    mined, _ = load_dictionary(path, "rkcnn-sae")
    plain, _ = load_dictionary(path, "rkcnn-sae-baseline")
    w = torch.load(other, weights_only=True)
    assert torch.equal(plain.W_dec, w["decoder.weight"].T)
    assert not torch.equal(plain.W_dec, mined.W_dec)


def test_weights_that_claim_more_numbers_than_the_file_has_are_refused(tmp_path):
    path = copied("dictionary-learning-AutoEncoder", tmp_path / "ae")
    w = torch.load(path / "ae.pt", weights_only=True)
    torch.save(w | {"bias": torch.ones(1).expand(10**12)}, path / "ae.pt")
    with pytest.raises(BadInput, match=r"bias in ae\.pt has more numbers than the file"):
        load_dictionary(path)


def test_weights_in_half_precision_are_read(tmp_path):
    path = copied("sparsify-sae", tmp_path / "sae")
    w = {name: x.to(torch.bfloat16) for name, x in load_file(path / "sae.safetensors").items()}
    save_file(w, path / "sae.safetensors")
    dictionary, _ = load_dictionary(path)
    assert torch.equal(dictionary.W_dec, w["W_dec"].float())


def test_what_sparsify_writes_keeps_both_sites(tmp_path):
    dictionary = made("transcoder", "topk", first=4)
    save_dictionary(dictionary, tmp_path, {}, "sparsify")
    again, metadata = load_dictionary(tmp_path)
    assert again.wiring == dictionary.wiring
    assert metadata["hook_name_out"] == "blocks.4.hook_mlp_out"
    x = rows(dictionary)
    with torch.no_grad():
        close(again(x)["blocks.4.hook_mlp_out"], dictionary(x)["blocks.4.hook_mlp_out"])


def test_a_configuration_that_is_no_dictionary_is_none(tmp_path):
    shutil.copy(ROOT / "dictionary-learning-AutoEncoder" / "ae.pt", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": [1]}), "utf-8")
    with pytest.raises(BadInput, match="holds no dictionary"):
        load_dictionary(tmp_path)


# Files, one of which is altered, and why they are then refused.
REFUSED = {
    "folders of different kinds": (
        "sparsify-run",
        ("layers.10/cfg.json", altered.key("k", value=2)),
        r"layers\.10 is of another kind than layers\.2",
    ),
    "groupmax of sparsify": (
        "sparsify-sae",
        ("cfg.json", altered.key("activation", value="groupmax")),
        "activation is 'groupmax': rkstore reads topk",
    ),
    "a layer that is not that of the site": (
        "dictionary-learning-AutoEncoder",
        ("config.json", altered.key("trainer", "layer", value=5)),
        r"layer is 5, and it is of blocks\.2\.hook_resid_post",
    ),
    "what the submodule reads": (
        "dictionary-learning-AutoEncoder",
        ("config.json", altered.key("buffer", "io", value="in")),
        "io is 'in': rkstore reads out",
    ),
    "what the submodule reads and gives": (
        "dictionary-learning-AutoEncoder",
        ("config.json", altered.key("buffer", "io", value="in_and_out")),
        "io is 'in_and_out': rkstore reads out",
    ),
    "weights of the mixed norm that rkstore does not have": (
        "crosscoder-mixed",
        ("config.json", altered.key("trainer", "code_normalization_alpha_cc", value=0.5)),
        r"code_normalization_alpha_cc is 0\.5: rkstore reads 0\.1",
    ),
    "latents of one model that read the other": (
        "crosscoder-dedicated",
        ("model_final.pt", altered.tensors(lambda w: w["encoder.weight"].add_(0.01))),
        "latents of one site alone read or write the other",
    ),
    "thresholds below zero of circuit-tracer": (
        "circuit-tracer-set-jumprelu",
        ("layer_1.safetensors", altered.with_value("activation_function.threshold", -0.5)),
        "a threshold is below 0, where circuit-tracer has negative",
    ),
    "a bias that the code does not use": (
        "matryoshka-sae-topk",
        ("sae.pt", altered.tensors(lambda w: w["b_enc"].add_(1))),
        "sae_type is topk, whose code does not use b_enc",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_rkstore_would_compute_otherwise_is_refused(tmp_path, case):
    name, (file, change), said = REFUSED[case]
    path = copied(name, tmp_path / name)
    change(path / file)
    with pytest.raises(BadInput, match=said):
        load_dictionary(path)
