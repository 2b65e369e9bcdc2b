"""The gradient of a training step, written out, against automatic differentiation."""

import pytest
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.sparse import ByLatent, SparseCode
from rkstore.training.fast.gradient import fill_gradients
from rkstore.training.fast.scratch import Scratch
from rkstore.training.helpers.auxk import AuxK

# Of 40 latents 5 are too many for a list, of 160 they are few; a relu is sparse by its bias.
DENSE = [("relu", 40, 0.0), ("topk", 40, 0.0)]
SPARSE = [("relu", 160, -9.0), ("topk", 160, 0.0), ("batchtopk", 160, 0.0), ("batchtopk", 40, 0.0)]
BOTH = pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE + SPARSE)


def make_dictionary(select, d_sae, bias=0.0):
    dictionary = Dictionary(12, d_sae, select_named(select, {"k": 5, "l1": 0.3}))
    generator = torch.Generator().manual_seed(0)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    dictionary.b_enc.data += bias
    dictionary.normalise_decoder()
    return dictionary


def make_rows(n=64, seed=1):
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))


def differentiated(dictionary, x, pressure, aux=None):
    """The slow, obvious way: the loss as it is defined, and autograd."""
    f = dictionary.encode(x)
    reconstruction = dictionary.decode(f).float()
    squared_error = (reconstruction - x).square().sum(dim=-1).mean()
    loss = squared_error + pressure * dictionary.select.penalty(f.float())
    if aux is not None:
        loss = loss + auxiliary_loss(dictionary, x, (x - reconstruction).detach(), aux)
    return torch.autograd.grad(loss, list(dictionary.parameters())), f


def auxiliary_loss(dictionary, x, error, aux):
    """Gao et al.'s, times the variance of x: 1/32 of the relative error of the error."""
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    of_dead = torch.where(aux.dead, pre, -torch.inf)
    values, latents = of_dead.topk(min(aux.k, int(aux.dead.sum())), dim=1)
    z = torch.zeros_like(pre).scatter(1, latents, values.clamp_min(0))
    relative = (z @ dictionary.W_dec - error).square().sum() / centred(error).square().sum()
    return relative / 32 * centred(x).square().sum() / len(x)


def centred(rows):
    return rows - rows.mean(dim=0)


def some_dead(d_sae, k, every=3):
    """One latent in so many is dead, whether it fires or not."""
    return AuxK(torch.arange(d_sae) % every == 0, k)


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@BOTH
def test_the_gradients_are_those_of_automatic_differentiation(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows()
    expected, _ = differentiated(dictionary, x, pressure=0.7)
    fill_gradients(dictionary, x, Scratch(), pressure=0.7)
    for parameter, gradient in zip(dictionary.parameters(), expected, strict=True):
        assert distance(parameter.grad, gradient) < 1e-6


@BOTH
def test_a_step_tells_the_residual_the_latents_that_fired_and_l0(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows()
    _, f = differentiated(dictionary, x, pressure=1.0)
    found = fill_gradients(dictionary, x, Scratch())
    torch.testing.assert_close(found.residual, (dictionary.decode(f) - x).detach())
    assert torch.equal(found.fired, (f > 0).any(dim=0))
    assert found.l0 == pytest.approx((f > 0).sum(dim=1).float().mean().item())


@pytest.mark.parametrize(("select", "d_sae", "bias"), SPARSE)
def test_sparse_codes_are_summed_as_lists(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows()
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    code = dictionary.select.sparse(pre.detach())
    torch.testing.assert_close(code.dense(), dictionary.select(pre).detach())


@pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE)
def test_dense_codes_are_not(select, d_sae, bias):
    dictionary = make_dictionary(select, d_sae, bias)
    assert dictionary.select.sparse(make_rows() @ dictionary.W_enc.detach()) is None


@pytest.mark.parametrize("select", ["relu", "topk", "batchtopk"])
def test_a_code_of_nothing_moves_the_decoder_bias_alone(select):
    dictionary, x = make_dictionary(select, 160, bias=-1000.0), make_rows()
    found = fill_gradients(dictionary, x, Scratch())
    assert found.l0 == 0
    assert not any(p.grad.any() for p in dictionary.parameters() if p is not dictionary.b_dec)
    torch.testing.assert_close(dictionary.b_dec.grad, 2 * (dictionary.b_dec - x).mean(dim=0))


@BOTH
def test_gradients_lie_in_memory_as_their_parameters_do(select, d_sae, bias):
    dictionary = make_dictionary(select, d_sae, bias)
    fill_gradients(dictionary, make_rows(), Scratch())
    assert all(p.grad.stride() == p.stride() for p in dictionary.parameters())


@BOTH
def test_what_a_step_leaves_behind_changes_no_later_one(select, d_sae, bias):
    used, fresh = (make_dictionary(select, d_sae, bias) for _ in range(2))
    scratch = Scratch()
    fill_gradients(used, make_rows(100, seed=2), scratch)
    for dictionary, memory in ((used, scratch), (fresh, Scratch())):
        fill_gradients(dictionary, make_rows(30), memory)
    for a, b in zip(used.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@BOTH
def test_bfloat16_products_give_float32_gradients_about_as_right_as_autocast(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows(512)
    exact, _ = differentiated(dictionary, x, pressure=0.7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = differentiated(dictionary, x, pressure=0.7)
    fill_gradients(dictionary, x, Scratch(), pressure=0.7, dtype=torch.bfloat16)
    for parameter, truth, usual in zip(dictionary.parameters(), exact, rounded, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert 0 < distance(parameter.grad, truth) < 1.5 * distance(usual, truth) + 1e-3


@pytest.mark.parametrize("k", [1, 4, 1000])
@BOTH
def test_with_auxk_they_are_those_of_the_loss_with_its_term(select, d_sae, bias, k):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows()
    aux = some_dead(d_sae, k)
    expected, _ = differentiated(dictionary, x, pressure=0.7, aux=aux)
    without, _ = differentiated(dictionary, x, pressure=0.7)
    fill_gradients(dictionary, x, Scratch(), pressure=0.7, aux=aux)
    for parameter, gradient in zip(dictionary.parameters(), expected, strict=True):
        assert distance(parameter.grad, gradient) < 1e-6
        assert parameter.grad.stride() == parameter.stride()
    if bias == 0:
        dead = aux.dead.nonzero().squeeze(1)
        assert distance(without[2][dead], expected[2][dead]) > 1e-4


@BOTH
def test_auxk_changes_no_latent_that_lives(select, d_sae, bias):
    with_term, without = (make_dictionary(select, d_sae, bias) for _ in range(2))
    aux = some_dead(d_sae, k=4)
    fill_gradients(with_term, make_rows(), Scratch(), aux=aux)
    fill_gradients(without, make_rows(), Scratch())
    assert torch.equal(with_term.W_dec.grad[~aux.dead], without.W_dec.grad[~aux.dead])
    assert torch.equal(with_term.W_enc.grad[:, ~aux.dead], without.W_enc.grad[:, ~aux.dead])


@BOTH
def test_where_no_latent_is_dead_auxk_changes_nothing(select, d_sae, bias):
    with_term, without = (make_dictionary(select, d_sae, bias) for _ in range(2))
    nothing_dead = AuxK(torch.zeros(d_sae, dtype=torch.bool), 4)
    fill_gradients(with_term, make_rows(), Scratch(), aux=nothing_dead)
    fill_gradients(without, make_rows(), Scratch())
    for a, b in zip(with_term.parameters(), without.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_auxk_in_bfloat16_gives_about_the_same_in_float32():
    dictionary, x = make_dictionary("topk", 160), make_rows(512)
    aux = some_dead(160, k=20)
    exact, _ = differentiated(dictionary, x, pressure=0.0, aux=aux)
    fill_gradients(dictionary, x, Scratch(), dtype=torch.bfloat16, aux=aux)
    for parameter, truth in zip(dictionary.parameters(), exact, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert 0 < distance(parameter.grad, truth) < 0.05


def test_a_list_gives_the_products_of_the_code_written_out():
    dense = torch.relu(make_rows(30) - 1)
    tokens, latents = dense.nonzero(as_tuple=True)
    code = SparseCode(tokens, latents, dense[tokens, latents], (30, 12))
    assert torch.equal(code.dense(), dense)
    rows, others = torch.randn(12, 7), torch.randn(30, 7)
    torch.testing.assert_close(code.times(rows), dense @ rows)
    torch.testing.assert_close(ByLatent.of(code).times(code.values, others), dense.T @ others)


def test_scratch_is_used_again_and_grows():
    scratch, kind = Scratch(), (torch.float32, torch.device("cpu"))
    large = scratch.take("a", (4, 6), *kind)
    assert scratch.take("a", (2, 6), *kind).data_ptr() == large.data_ptr()
    assert scratch.take("b", (4, 6), *kind).data_ptr() != large.data_ptr()
    assert scratch.take("a", (8, 6), *kind).shape == (8, 6)
