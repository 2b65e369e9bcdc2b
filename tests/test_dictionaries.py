"""Selects, inits, and the SAELens layout on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rkstore.batches import split_chunks
from rkstore.dictionaries import (
    INITS,
    SELECTS,
    Dictionary,
    initialise,
    load_dictionary,
    save_dictionary,
    select_named,
)
from rkstore.dictionaries.inits import InitData
from rkstore.errors import BadInput
from rkstore.settings import TrainSettings

SITE = "blocks.0.mlp.hook_post"


@pytest.fixture
def data(make_store):
    store, _ = make_store(rows=400)
    return InitData(store, SITE, split_chunks(store)[0], scale=0.5)


def make_dictionary(select="topk", d_in=12, d_sae=40, seed=0, **options):
    dictionary = Dictionary(d_in, d_sae, select_named(select, {"k": 5, "l1": 0.1} | options))
    generator = torch.Generator().manual_seed(seed)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    dictionary.normalise_decoder()
    for buffer in dictionary.select.buffers():
        buffer.fill_(2)
    return dictionary.eval()


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_encoding_follows_the_equation():
    dictionary, x = make_dictionary("relu"), randn(30, 12)
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    torch.testing.assert_close(dictionary.encode(x), pre.clamp_min(0))


def test_decoding_follows_the_equation():
    dictionary, f = make_dictionary(), randn(30, 40)
    torch.testing.assert_close(dictionary.decode(f), f @ dictionary.W_dec + dictionary.b_dec)


def test_topk_keeps_the_k_largest_of_each_token():
    pre = randn(30, 40)
    code = select_named("topk", {"k": 5})(pre)
    for row, sparse in zip(pre, code, strict=True):
        largest = row.sort(descending=True).indices[:5]
        expected = torch.zeros(40)
        expected[largest] = row[largest].clamp_min(0)
        torch.testing.assert_close(sparse, expected)


def test_topk_never_gives_a_negative_code():
    code = select_named("topk", {"k": 5})(-randn(8, 40).abs())
    assert code.count_nonzero() == 0


def test_the_l1_penalty_is_the_mean_over_tokens_of_the_sum_of_the_code():
    f = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    assert select_named("relu", {"l1": 0.5}).penalty(f).item() == pytest.approx(2.0)
    assert select_named("topk", {"k": 1}).penalty(f).item() == 0


def test_batchtopk_keeps_the_largest_of_the_batch():
    select, pre = select_named("batchtopk", {"k": 5}), randn(30, 40)
    smallest = pre.flatten().sort(descending=True).values[5 * 30 - 1]
    torch.testing.assert_close(select(pre), pre * (pre >= smallest))


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_batchtopk_finds_the_same_as_a_sort_of_everything(rows, k):
    for pre in (randn(rows, 40), randn(rows, 40).sort(dim=0).values, -randn(rows, 40).abs()):
        largest = pre.flatten().sort(descending=True).values[: rows * k]
        code = select_named("batchtopk", {"k": k})(pre).flatten().sort(descending=True).values
        torch.testing.assert_close(code[: rows * k], largest.clamp_min(0))
        assert not code[rows * k :].any()


def test_the_threshold_of_batchtopk_is_the_mean_of_the_smallest_that_stayed():
    select = select_named("batchtopk", {"k": 5})
    smallest = []
    for seed in range(20):
        code = select(randn(30, 40, seed=seed))
        smallest.append(code[code > 0].min().item())
    assert select.threshold.item() == pytest.approx(sum(smallest) / 20)


def test_at_inference_batchtopk_looks_at_no_other_token():
    select, pre = select_named("batchtopk", {"k": 5}), randn(30, 40)
    select(pre)
    before = select.threshold.clone()
    select.eval()
    torch.testing.assert_close(select(pre)[3], select(pre[3]))
    assert select(pre).count_nonzero() == 5 * 30 - 1  # all but the threshold itself
    assert select.threshold == before


def test_batchtopk_is_saved_as_the_jumprelu_that_saelens_loads(tmp_path):
    dictionary = make_dictionary("batchtopk")
    save_dictionary(dictionary.rescaled(4.0), tmp_path, {})
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "jumprelu"
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    assert set(tensors) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    torch.testing.assert_close(tensors["threshold"], torch.full((40,), 2 / 4.0))


def test_jumprelu_keeps_what_is_above_its_latents_threshold():
    dictionary = make_dictionary("jumprelu", d_sae=3)
    dictionary.select.threshold.copy_(torch.tensor([0.0, 1.0, 2.0]))
    pre = torch.tensor([[1.5, 1.5, 1.5], [-1.0, 1.0, 2.5]])
    expected = torch.tensor([[1.5, 1.5, 0.0], [0.0, 0.0, 2.5]])
    torch.testing.assert_close(dictionary.select(pre), expected)


@pytest.mark.parametrize("select", SELECTS)
def test_rescaling_undoes_the_scale_of_the_inputs(select):
    dictionary, x = make_dictionary(select), randn(30, 12)
    torch.testing.assert_close(dictionary.rescaled(3.0)(x), dictionary(3.0 * x) / 3.0)


def test_the_projected_gradient_leaves_the_norms_of_the_decoder():
    dictionary = make_dictionary()
    dictionary(randn(30, 12)).square().mean().backward()
    dictionary.project_decoder_gradient()
    along = (dictionary.W_dec.grad * dictionary.W_dec).sum(dim=1)
    assert dictionary.W_dec.grad.norm() > 0.1
    torch.testing.assert_close(along, torch.zeros(40), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [0, 41, -3])
def test_k_must_fit_the_latents(k):
    with pytest.raises(BadInput, match=f"--k is {k}.*1 to the 40 latents"):
        Dictionary(12, 40, select_named("topk", {"k": k}))


def test_sizes_must_be_positive():
    with pytest.raises(BadInput, match="positive sizes"):
        Dictionary(0, 40, select_named("relu", {}))


def test_activations_of_another_width_are_refused_with_both_widths():
    with pytest.raises(BadInput, match="12 wide, not 13"):
        make_dictionary().encode(randn(2, 13))


def test_unknown_selects_and_inits_are_refused_with_what_there_is():
    with pytest.raises(BadInput, match="relu, topk"):
        select_named("gated", {})
    with pytest.raises(BadInput, match="--init is 'xavier': choose one of random, tied, rkcnn"):
        TrainSettings(init="xavier")


@pytest.mark.parametrize("init", INITS)
def test_every_init_gives_unit_decoder_rows_and_depends_on_its_seed_alone(init, data):
    settings = TrainSettings(init=init, rkcnn_m=3)
    made = [Dictionary(12, 40, select_named("topk", {"k": 5})) for _ in range(3)]
    for dictionary, seed in zip(made, (0, 0, 1), strict=True):
        initialise(dictionary, data, TrainSettings(**vars(settings) | {"seed": seed}))
    torch.testing.assert_close(made[0].W_dec.norm(dim=1), torch.ones(40))
    assert torch.equal(made[0].W_dec, made[1].W_dec)
    assert torch.equal(made[0].W_enc, made[1].W_enc)
    assert not torch.equal(made[0].W_dec, made[2].W_dec)


@pytest.mark.parametrize("init", ["tied", "rkcnn"])
def test_tied_inits_centre_on_the_mean_and_encode_along_their_directions(init, data):
    dictionary = Dictionary(12, 40, select_named("topk", {"k": 5}))
    initialise(dictionary, data, TrainSettings(init=init, rkcnn_m=3))
    cosine = torch.cosine_similarity(dictionary.W_enc.data.T, dictionary.W_dec.data)
    torch.testing.assert_close(cosine, torch.ones(40))
    mean = torch.tensor(data.statistics.mean * data.scale, dtype=torch.float32)
    torch.testing.assert_close(dictionary.b_dec.data, mean)


def test_rkcnn_leaves_the_other_latents_as_tied_has_them(data):
    tied, rkcnn = (Dictionary(12, 40, select_named("topk", {"k": 5})) for _ in range(2))
    initialise(tied, data, TrainSettings(init="tied"))
    initialise(rkcnn, data, TrainSettings(init="rkcnn", rkcnn_m=3, rkcnn_fraction=0.25))
    torch.testing.assert_close(rkcnn.W_dec[10:], tied.W_dec[10:])
    # Ten directions, each within its three dimensions.
    assert (rkcnn.W_dec[:10].count_nonzero(dim=1) <= 3).all()


def test_mined_latents_begin_with_the_spread_of_a_random_direction(data):
    dictionary = Dictionary(12, 40, select_named("topk", {"k": 5}))
    initialise(dictionary, data, TrainSettings(init="rkcnn", rkcnn_m=3))
    x = data.sample()
    spread = (x @ dictionary.W_enc.data)[:, :20].std(dim=0)
    torch.testing.assert_close(spread, x.var(dim=0).mean().sqrt().expand(20))


def test_a_fraction_that_leaves_no_latent_to_mine_is_refused(data):
    dictionary = Dictionary(12, 40, select_named("topk", {"k": 5}))
    with pytest.raises(BadInput, match="--rkcnn-fraction"):
        initialise(dictionary, data, TrainSettings(init="rkcnn", rkcnn_fraction=0.001))


@pytest.mark.parametrize("select", SELECTS)
def test_a_saved_dictionary_loads_the_same(select, tmp_path):
    dictionary, x = make_dictionary(select), randn(30, 12)
    save_dictionary(dictionary, tmp_path, {"hook_name": SITE})
    loaded, metadata = load_dictionary(tmp_path)
    assert torch.equal(loaded(x), dictionary(x))
    assert metadata["hook_name"] == SITE


def test_the_files_have_saelens_names_keys_and_shapes(tmp_path):
    save_dictionary(make_dictionary(), tmp_path, {"model_name": "gpt2"})
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "topk"
    assert config["k"] == 5
    assert config["apply_b_dec_to_input"] is True
    assert config["normalize_activations"] == "none"
    assert config["metadata"]["sae_lens_version"] >= "6.0.0"
    shapes = {k: tuple(v.shape) for k, v in load_file(tmp_path / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (12, 40), "b_enc": (40,), "W_dec": (40, 12), "b_dec": (12,)}


def test_a_directory_without_a_dictionary_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no dictionary"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "gated"}, "'gated' dictionary: rkstore reads standard, topk, jumprelu"),
        ({"d_sae": 41}, "size mismatch"),
        ({"k": 400}, "1 to the 40 latents"),
    ],
)
def test_a_dictionary_that_does_not_fit_its_configuration_is_refused(tmp_path, change, said):
    save_dictionary(make_dictionary(), tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(BadInput, match=said):
        load_dictionary(tmp_path)
