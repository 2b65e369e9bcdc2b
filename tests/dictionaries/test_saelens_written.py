"""What rkstore writes for SAELens: names, shapes, dtypes and keys, of every architecture."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.dictionaries.convert import convert
from rkstore.dictionaries.disk import CONFIG, WEIGHTS
from rkstore.dictionaries.settings import ConvertSettings
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.files import sha256
from rkstore.store.sites import Site

IN, OUT = Site("blocks.0.mlp.hook_in", 6), Site("blocks.0.hook_mlp_out", 5)
IN_1, OUT_1 = Site("blocks.1.mlp.hook_in", 6), Site("blocks.1.hook_mlp_out", 5)
LATENTS, K = 16, 3

SAE = Wiring((Bank(LATENTS, (IN,), (IN,)),), centred=True)
TRANSCODER = Wiring((Bank(LATENTS, (IN,), (OUT,)),))
SKIP = Wiring((Bank(LATENTS, (IN,), (OUT,)),), skip=True)
PER_LAYER = Wiring(
    (Bank(LATENTS, (IN,), (OUT,)), Bank(10, (IN_1,), (OUT_1,))), together=False, skip=True
)

KEYS = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input"),
    *("normalize_activations", "reshape_activations", "metadata"),
}
SHAPES = {"W_enc": (6, LATENTS), "b_enc": (LATENTS,), "W_dec": (LATENTS, 6), "b_dec": (6,)}
THRESHOLD = {"threshold": (LATENTS,)}
GATED = {"b_gate": (LATENTS,), "b_mag": (LATENTS,), "r_mag": (LATENTS,)}
OF_OUT = SHAPES | {"W_dec": (LATENTS, 5), "b_dec": (5,)}
W_SKIP = {"W_skip": (5, 6)}
WITH_K = {"k", "rescale_acts_by_decoder_norm"}

# Wiring, select, SAELens' architecture, tensors, and keys besides those of all.
WRITTEN = [
    (SAE, "relu", "standard", SHAPES, set()),
    (SAE, "topk", "topk", SHAPES, WITH_K),
    (SAE, "abstopk", "abstopk", SHAPES, WITH_K),
    (SAE, "batchtopk", "jumprelu", SHAPES | THRESHOLD, set()),
    (SAE, "jumprelu", "jumprelu", SHAPES | THRESHOLD, set()),
    (SAE, "gated", "gated", {k: v for k, v in SHAPES.items() if k != "b_enc"} | GATED, set()),
    (TRANSCODER, "relu", "transcoder", OF_OUT, {"d_out"}),
    (SKIP, "relu", "skip_transcoder", OF_OUT | W_SKIP, {"d_out"}),
    (TRANSCODER, "jumprelu", "jumprelu_transcoder", OF_OUT | THRESHOLD, {"d_out"}),
    (TRANSCODER, "batchtopk", "jumprelu_transcoder", OF_OUT | THRESHOLD, {"d_out"}),
    (SKIP, "jumprelu", "jumprelu_skip_transcoder", OF_OUT | W_SKIP | THRESHOLD, {"d_out"}),
    (SKIP, "batchtopk", "jumprelu_skip_transcoder", OF_OUT | W_SKIP | THRESHOLD, {"d_out"}),
]
IDS = [f"{architecture} of {select}" for _, select, architecture, *_ in WRITTEN]


def made(wiring, select):
    """A dictionary of random weights."""
    dictionary = Dictionary(wiring, select_named(select, {"k": K}))
    generator = torch.Generator().manual_seed(0)
    for tensor in (*dictionary.parameters(), *dictionary.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
    for pool in dictionary.pools:
        for name, tensor in pool.state_dict().items():
            if name == "threshold":
                tensor.abs_()
    return dictionary.eval()


def rows(*sites):
    generator = torch.Generator().manual_seed(1)
    return {site.hook_name: torch.randn(20, site.width, generator=generator) for site in sites}


def written(directory, dictionary, metadata=None):
    directory.mkdir(exist_ok=True)
    save_dictionary(dictionary, directory, metadata or {}, "saelens")
    return json.loads((directory / CONFIG).read_text("utf-8"))


@pytest.mark.parametrize(("wiring", "select", "architecture", "shapes", "more"), WRITTEN, ids=IDS)
def test_names_shapes_dtypes_and_keys_are_saelens(
    tmp_path, wiring, select, architecture, shapes, more
):
    config = written(tmp_path, made(wiring, select), {"model_name": "gpt2"})
    assert set(config) == KEYS | more
    assert config["architecture"] == architecture
    assert config["apply_b_dec_to_input"] is (wiring is SAE)
    assert (config["d_in"], config["d_sae"], config.get("d_out", 5)) == (6, LATENTS, 5)
    assert config["dtype"] == "float32"
    found = load_file(tmp_path / WEIGHTS)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    said = {"sae_lens_version": "6.0.0", "sae_lens_training_version": None, "model_name": "gpt2"}
    said |= {"hook_name": IN.hook_name, "hook_head_index": None}
    if wiring is not SAE:
        said |= {"hook_name_out": OUT.hook_name, "hook_head_index_out": None}
    assert config["metadata"] == said


@pytest.mark.parametrize(("wiring", "select"), [row[:2] for row in WRITTEN], ids=IDS)
def test_what_is_written_is_read_as_the_same(tmp_path, wiring, select):
    dictionary, x = made(wiring, select), rows(IN, OUT)
    written(tmp_path, dictionary)
    again, _ = load_dictionary(tmp_path)
    assert again.wiring == wiring
    with torch.no_grad():
        for found, expected in zip(again.reconstruct(x), dictionary.reconstruct(x), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_thresholds_of_weighed_activations_become_plain_ones(tmp_path):
    weighed = Wiring(SAE.banks, centred=True, norm="sae")
    dictionary, x = made(weighed, "jumprelu"), rows(IN)
    assert written(tmp_path, dictionary)["architecture"] == "jumprelu"
    again, _ = load_dictionary(tmp_path)
    assert again.wiring == SAE
    torch.testing.assert_close(again.encode(x), dictionary.encode(x), atol=1e-5, rtol=1e-5)


def test_an_encoder_that_reads_x_itself_says_so(tmp_path):
    dictionary, x = made(Wiring(SAE.banks), "relu"), rows(IN)
    assert written(tmp_path, dictionary)["apply_b_dec_to_input"] is False
    again, _ = load_dictionary(tmp_path)
    torch.testing.assert_close(again.encode(x), dictionary.encode(x), atol=1e-5, rtol=1e-5)


def test_a_set_of_transcoders_becomes_a_directory_for_each(tmp_path):
    dictionary, x = made(PER_LAYER, "jumprelu"), rows(IN, OUT, IN_1, OUT_1)
    save_dictionary(dictionary, tmp_path, {"model_name": "gpt2"}, "saelens")
    with pytest.raises(BadInput, match=f"give one of {IN.hook_name}, {IN_1.hook_name}"):
        load_dictionary(tmp_path)
    with torch.no_grad():
        f, decoded = dictionary.reconstruct(x)
        for reads, writes, latents in ((IN, OUT, f[:, :LATENTS]), (IN_1, OUT_1, f[:, LATENTS:])):
            part, metadata = load_dictionary(tmp_path / reads.hook_name)
            assert metadata["model_name"] == "gpt2"
            code, y = part.reconstruct(x)
            torch.testing.assert_close(code, latents, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                y[writes.hook_name], decoded[writes.hook_name], atol=1e-5, rtol=1e-5
            )


def test_mined_latents_of_a_set_are_counted_in_each_transcoder(tmp_path):
    given = {"rkstore": {"mined": [[2, 5], [14, 18]]}, "l0": 6.5, "num_dead_features": 3}
    save_dictionary(made(PER_LAYER, "relu"), tmp_path, given, "saelens")
    found = [load_dictionary(tmp_path / site.hook_name)[1] for site in (IN, IN_1)]
    assert [said["rkstore"]["mined"] for said in found] == [[[2, 5], [14, 16]], [[0, 2]]]
    for said in found:  # what was counted in all transcoders together is of none of them
        assert not {"l0", "num_dead_features"} & said.keys()


def test_a_head_is_named_by_its_hook_and_number(tmp_path):
    site = Site("blocks.0.attn.hook_z.h3", 6)
    dictionary = made(Wiring((Bank(LATENTS, (site,), (OUT,)),)), "relu")
    said = written(tmp_path, dictionary)["metadata"]
    assert (said["hook_name"], said["hook_head_index"]) == ("blocks.0.attn.hook_z", 3)
    assert load_dictionary(tmp_path)[0].wiring.reads == (site,)


RECORDED = [
    ({"dictionary": "relu", "l1": 2.0}, "standard", {"l1_coefficient": 2.0}),
    ({"dictionary": "topk", "k": 3}, "topk", {}),
    ({"dictionary": "batchtopk", "k": 3}, "batchtopk", {"k": 3}),
    ({"dictionary": "jumprelu"}, "jumprelu", {}),
    (
        {"dictionary": "batchtopk", "k": 3, "prefixes": [0, 0.25, 0.5, 1]},
        "matryoshka_batchtopk",
        {"k": 3, "matryoshka_widths": [4, 8, 16]},
    ),
    (
        {"dictionary": "batchtopk", "k": 3, "prefixes": [0.5, 1], "prefix_order": "activations"},
        "batchtopk",
        {"k": 3},
    ),
]


@pytest.mark.parametrize(("run", "architecture", "details"), RECORDED)
def test_how_it_was_trained_is_remembered(tmp_path, run, architecture, details):
    """A Matryoshka's widths, when it has become a JumpReLU, are in the metadata alone."""
    said = written(tmp_path, made(SAE, "batchtopk"), {"rkstore": run})["metadata"]
    assert said["training_architecture"] == architecture
    assert said["training_architecture_details"] == details


def test_what_was_counted_goes_with_it(tmp_path):
    """As it was evaluated; else as it was at the end of the training."""
    save_dictionary(made(SAE, "topk"), tmp_path, {})
    history = [{"step": 10, "l0": 9.0, "dead": 8}, {"step": 20, "l0": 3.5, "dead": 2}]
    (tmp_path / "training.json").write_text(json.dumps({"history": history}))

    def counted(name):
        out = convert(tmp_path, ConvertSettings(to="saelens", out=str(tmp_path / name)))
        said = json.loads((out / CONFIG).read_text("utf-8"))["metadata"]
        return said["l0"], said["num_dead_features"]

    assert counted("a") == (3.5, 2)
    (tmp_path / "evaluation").mkdir()
    own = {"kind": "reconstruction", "store_fingerprint": "1"}
    own["weights_sha256"] = sha256(tmp_path / WEIGHTS)
    (tmp_path / "evaluation" / "results.json").write_text(
        json.dumps([own | {"result": {"l0": 2.5, "dead": 1}}])
    )
    assert counted("b") == (2.5, 1)


def test_what_another_program_recorded_is_kept(tmp_path):
    given = {"training_architecture": "batchtopk", "l0": 3.5, "num_dead_features": 2}
    said = written(tmp_path, made(SAE, "jumprelu"), given)["metadata"]
    assert said.items() >= given.items()
    assert load_dictionary(tmp_path)[1].items() >= given.items()


CLT = Wiring((Bank(LATENTS, (IN,), (OUT, OUT_1)), Bank(LATENTS, (IN_1,), (OUT_1,))))
REFUSED = [
    (TRANSCODER, "topk", "no transcoder with topk, only with relu, jumprelu and batchtopk"),
    (SKIP, "abstopk", "no transcoder with abstopk"),
    (SKIP, "gated", "no transcoder with gated"),
    (Wiring(SAE.banks, centred=True, norm="sae"), "topk", "topk ranks by decoder norms"),
    (Wiring(SAE.banks, centred=True, skip=True), "relu", "reads x - b_dec"),
    (CLT, "relu", "SAELens has no cross-layer transcoders"),
    (Wiring((Bank(LATENTS, (IN, OUT), (IN, OUT)),)), "relu", "SAELens has no crosscoders"),
    (Wiring(PER_LAYER.banks), "jumprelu", "its banks share one select"),
]


@pytest.mark.parametrize(("wiring", "select", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_saelens_cannot_hold_is_refused_with_the_reason(tmp_path, wiring, select, said):
    with pytest.raises(BadInput, match=f"saelens cannot hold this dictionary: .*{said}"):
        save_dictionary(made(wiring, select), tmp_path, {}, "saelens")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_a_transcoder_keeps_its_wiring(tmp_path):
    save_dictionary(made(SKIP, "relu"), tmp_path, {"model_name": "gpt2"})
    config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    assert config["architecture"] == "rkstore"
    assert config["metadata"] == {"sae_lens_version": "6.0.0", "model_name": "gpt2"}
