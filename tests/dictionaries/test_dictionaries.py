"""Selects, resampling, and the SAELens layout on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import SELECTS, Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.dictionaries.losses import Coded
from rkstore.dictionaries.selection import Selection
from rkstore.errors import BadInput
from rkstore.training.helpers.resample import resample

SITE = "blocks.0.mlp.hook_post"


def make_dictionary(select="topk", d_in=12, d_sae=40, seed=0, **options):
    dictionary = Dictionary.of_site(
        d_in, d_sae, select_named(select, {"k": 5, "l1": 0.1} | options)
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    dictionary.normalise_decoder()
    for buffer in dictionary.select.buffers():
        buffer.fill_(2)
    return dictionary.eval()


def at_work(select, **options):
    return Selection(select_named(select, options), 40)


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
    code = at_work("topk", k=5)(pre)
    for row, sparse in zip(pre, code, strict=True):
        largest = row.sort(descending=True).indices[:5]
        expected = torch.zeros(40)
        expected[largest] = row[largest].clamp_min(0)
        torch.testing.assert_close(sparse, expected)


def test_topk_never_gives_a_negative_code():
    code = at_work("topk", k=5)(-randn(8, 40).abs())
    assert code.count_nonzero() == 0


def test_the_l1_penalty_is_the_mean_over_tokens_of_the_sum_of_the_code():
    f = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    now = Coded(f, f, at_work("relu"), torch.zeros(2) > 0, 0.5, lambda _: f.sum())
    assert select_named("relu", {"l1": 0.5}).losses(now)["l1"].item() == pytest.approx(1.0)
    assert select_named("topk", {"k": 1}).losses(now) == {}


def test_batchtopk_keeps_the_largest_of_the_batch():
    select, pre = at_work("batchtopk", k=5), randn(30, 40)
    smallest = pre.flatten().sort(descending=True).values[5 * 30 - 1]
    torch.testing.assert_close(select(pre), pre * (pre >= smallest))


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_batchtopk_finds_the_same_as_a_sort_of_everything(rows, k):
    for pre in (randn(rows, 40), randn(rows, 40).sort(dim=0).values, -randn(rows, 40).abs()):
        largest = pre.flatten().sort(descending=True).values[: rows * k]
        code = at_work("batchtopk", k=k)(pre).flatten().sort(descending=True).values
        torch.testing.assert_close(code[: rows * k], largest.clamp_min(0))
        assert not code[rows * k :].any()


def test_the_threshold_of_batchtopk_is_the_mean_of_the_smallest_that_stayed():
    select = at_work("batchtopk", k=5)
    smallest = []
    for seed in range(20):
        code = select(randn(30, 40, seed=seed))
        smallest.append(code[code > 0].min().item())
    assert select.threshold.item() == pytest.approx(sum(smallest) / 20)


def test_at_inference_batchtopk_looks_at_no_other_token():
    select, pre = at_work("batchtopk", k=5), randn(30, 40)
    select(pre)
    before = select.threshold.clone()
    select.eval()
    torch.testing.assert_close(select(pre)[3], select(pre[3]))
    assert select(pre).count_nonzero() == 5 * 30 - 1  # all but the threshold itself
    assert select.threshold == before


def test_batchtopk_is_saved_as_the_jumprelu_that_saelens_loads(tmp_path):
    dictionary = make_dictionary("batchtopk")
    save_dictionary(dictionary.rescaled({"x": 4.0}), tmp_path, {})
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "jumprelu"
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    assert set(tensors) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    torch.testing.assert_close(tensors["threshold"], torch.full((40,), 2 / 4.0))


def test_jumprelu_keeps_what_is_above_its_latents_threshold():
    dictionary = make_dictionary("jumprelu", d_sae=3)
    dictionary.select.threshold.data.copy_(torch.tensor([0.0, 1.0, 2.0]))
    pre = torch.tensor([[1.5, 1.5, 1.5], [-1.0, 1.0, 2.5]])
    expected = torch.tensor([[1.5, 1.5, 0.0], [0.0, 0.0, 2.5]])
    torch.testing.assert_close(dictionary.select(pre), expected)


@pytest.mark.parametrize("select", SELECTS)
def test_rescaling_undoes_the_scale_of_the_inputs(select):
    dictionary, x = make_dictionary(select), randn(30, 12)
    torch.testing.assert_close(dictionary.rescaled({"x": 3.0})(x), dictionary(3.0 * x) / 3.0)


def test_the_projected_gradient_leaves_the_norms_of_the_decoder():
    dictionary = make_dictionary()
    dictionary(randn(30, 12)).square().mean().backward()
    dictionary.project_decoder_gradient()
    along = (dictionary.W_dec.grad * dictionary.W_dec).sum(dim=1)
    assert dictionary.W_dec.grad.norm() > 0.1
    torch.testing.assert_close(along, torch.zeros(40), atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [0, 41, -3])
def test_k_must_fit_the_latents(k):
    with pytest.raises(BadInput, match=f"k is {k}"):
        Dictionary.of_site(12, 40, select_named("topk", {"k": k}))


def test_sizes_must_be_positive():
    with pytest.raises(BadInput, match="positive sizes"):
        Dictionary.of_site(0, 40, select_named("relu", {}))


def test_activations_of_another_width_are_refused_with_both_widths():
    with pytest.raises(BadInput, match="12 wide, not 13"):
        make_dictionary().encode(randn(2, 13))


def test_unknown_selects_are_refused_with_what_there_is():
    with pytest.raises(BadInput, match="relu, topk"):
        select_named("other", {})


@pytest.mark.parametrize("select", SELECTS)
def test_a_saved_dictionary_loads_the_same(select, tmp_path):
    dictionary, x = make_dictionary(select), randn(30, 12)
    save_dictionary(dictionary, tmp_path, {"hook_name": SITE})
    loaded, metadata = load_dictionary(tmp_path)
    if select == "gated":  # SAELens has the bias of the magnitudes as another sum
        torch.testing.assert_close(loaded(x), dictionary(x))
    else:
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
        (
            {"architecture": "other"},
            "architecture is 'other': rkstore reads standard, topk, jumprelu",
        ),
        ({"d_sae": 41}, "by its configuration"),
        ({"k": 400}, "1 to the 40 latents"),
    ],
)
def test_a_dictionary_that_does_not_fit_its_configuration_is_refused(tmp_path, change, said):
    save_dictionary(make_dictionary(), tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(BadInput, match=said):
        load_dictionary(tmp_path)


def resampled(dead, rows=None, seed=3, select="topk"):
    """A dictionary before and after a resampling of the ``dead``, its Adam, and the rows."""
    before, after = make_dictionary(select), make_dictionary(select)
    optimizer = torch.optim.Adam(after.parameters(), lr=0.0)
    x = randn(30, 12) if rows is None else rows
    after(x).square().sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(seed)
    resample(after, optimizer, torch.tensor(dead), {"x": x}, generator)
    return before, after, optimizer, x


def test_a_resampled_latent_begins_as_the_direction_of_a_row():
    _, after, _, x = resampled([3, 8])
    rows = torch.nn.functional.normalize(x - after.b_dec, dim=1)
    cosine = after.W_dec[[3, 8]] @ rows.T
    torch.testing.assert_close(cosine.max(dim=1).values, torch.ones(2))
    assert len(set(cosine.argmax(dim=1).tolist())) == 2
    assert not after.b_enc[[3, 8]].any()


def test_a_resampled_latent_fires_on_its_row():
    _, after, _, x = resampled([3, 8], select="relu")
    assert after.encode(x)[:, [3, 8]].any(dim=0).all()


def test_a_resampled_encoder_row_is_a_fifth_as_long_as_the_living_ones():
    before, after, _, _ = resampled([3, 8])
    living = [i for i in range(40) if i not in (3, 8)]
    expected = 0.2 * before.W_enc.norm(dim=0)[living].mean() * after.W_dec[[3, 8]]
    torch.testing.assert_close(after.W_enc.T[[3, 8]], expected)


def test_resampling_leaves_the_living_latents_and_makes_adam_forget_the_dead():
    before, after, optimizer, _ = resampled([3, 8])
    living = [i for i in range(40) if i not in (3, 8)]
    assert torch.equal(after.W_dec[living], before.W_dec[living])
    assert torch.equal(after.W_enc[:, living], before.W_enc[:, living])
    assert torch.equal(after.b_enc[living], before.b_enc[living])
    for moment in ("exp_avg", "exp_avg_sq"):
        by_latent = (
            optimizer.state[after.W_dec][moment],
            optimizer.state[after.W_enc][moment].T,
            optimizer.state[after.b_enc][moment],
        )
        for kept in by_latent:
            assert not kept[[3, 8]].any()
            assert kept[living].any()


def test_rows_are_drawn_in_proportion_to_the_square_of_their_loss():
    x = 1e-3 * randn(30, 12)
    x[17] = 100.0
    for seed in range(5):
        _, after, _, _ = resampled([3], rows=x, seed=seed)
        direction = torch.nn.functional.normalize(x[17] - after.b_dec, dim=0)
        torch.testing.assert_close(after.W_dec[3], direction)


def test_more_dead_latents_than_rows_share_them():
    _, after, _, _ = resampled(list(range(40)), rows=randn(7, 12))
    torch.testing.assert_close(after.W_dec.norm(dim=1), torch.ones(40))


def test_looking_for_losses_teaches_the_threshold_of_batchtopk_nothing():
    dictionary = make_dictionary("batchtopk").train()
    optimizer = torch.optim.Adam(dictionary.parameters())
    dictionary(randn(30, 12)).sum().backward()
    optimizer.step()
    before = dictionary.select.threshold.clone()
    resample(dictionary, optimizer, torch.tensor([1]), {"x": randn(30, 12)}, torch.Generator())
    assert dictionary.select.threshold == before
    assert dictionary.training
