"""Selects: what each keeps, what it costs, its gradients, and that it is saved as what it is."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import SELECTS, Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.dictionaries.losses import Coded, select_losses
from rkstore.dictionaries.prefixes import Prefixes
from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.measure import Measure
from rkstore.store.sites import Site
from rkstore.training.helpers.auxk import AuxK, code_of_dead
from rkstore.training.objective import Objective
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings

SITE = (Site("x", 12),)
every_select = pytest.mark.parametrize("select", SELECTS)


def make_dictionary(select, norm="none", d_sae=160, **options):
    """Decoder rows of different length, so that a norm matters."""
    wiring = Wiring((Bank(d_sae, SITE, SITE),), centred=True, norm=norm)
    dictionary = Dictionary(wiring, select_named(select, {"k": 5, "l1": 0.3} | options))
    generator = torch.Generator().manual_seed(0)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    for pool in dictionary.pools:
        pool.constrain()
        for buffer in pool.buffers():
            buffer.fill_(2)
    return dictionary


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coded(pre, kept, dead=None, pressure=1.0):
    """One pool of unit rows in a pass; nothing is decoded."""
    dead = torch.zeros(pre.shape[1]) > 0 if dead is None else dead
    return Coded(pre, kept(pre), kept, dead, pressure, lambda f: f.sum())


# JumpReLU

WIDTH = 0.05


def thresholds(**options):
    """A JumpReLU of three latents, in double precision."""
    kept = Selection(select_named("jumprelu", {"bandwidth": WIDTH} | options), 3).double()
    kept.threshold.data.copy_(torch.tensor([0.5, 0.8, 1.1]))
    return kept


def evenly(n=20_000):
    """Pre-activations that are dense around every threshold, in a random order."""
    order = torch.stack(
        [torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in (1, 2, 3)]
    )
    return (order.T.double() + 0.37) / n * 2 - 0.3


def smoothed_slopes(loss, kept):
    """``(L(θ + ε/2) - L(θ - ε/2)) / ε``: the derivative of ``L`` convolved with the kernel."""
    slopes = []
    for latent in range(3):
        ends = []
        for shift in (WIDTH / 2, -WIDTH):
            kept.threshold.data[latent] += shift
            ends.append(loss().item())
        kept.threshold.data[latent] += WIDTH / 2
        slopes.append((ends[0] - ends[1]) / WIDTH)
    return torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.parametrize("sparsity", ["step", "tanh"])
def test_a_penalty_gives_thresholds_the_slope_of_the_smoothed_penalty(sparsity):
    kept, pre = thresholds(sparsity=sparsity, l0=0.7), evenly(3000)

    def loss():
        return kept.rule.losses(coded(pre, kept, pressure=0.5))["l0"]

    (gradient,) = torch.autograd.grad(loss(), kept.threshold)
    torch.testing.assert_close(gradient, smoothed_slopes(loss, kept))


def test_the_quadratic_penalty_gives_its_own_slope_times_that_of_the_smoothed_l0():
    kept, pre = thresholds(sparsity="quadratic", l0=0.7, target_l0=2.5), evenly(3000)

    def l0():
        return (pre > kept.threshold).double().sum(dim=1).mean()

    loss = kept.rule.losses(coded(pre, kept))["l0"]
    assert loss.item() == pytest.approx(0.7 * (l0().item() / 2.5 - 1) ** 2)
    (gradient,) = torch.autograd.grad(loss, kept.threshold)
    outer = 0.7 * 2 * (l0() / 2.5 - 1) / 2.5
    torch.testing.assert_close(gradient, outer * smoothed_slopes(l0, kept))


def test_the_error_gives_thresholds_the_slope_of_the_smoothed_error():
    kept, pre, W_dec = thresholds(), evenly(), randn(3, 4).double()
    y = randn(len(pre), 4, seed=2).double() + 0.5

    def loss():
        return (kept(pre) @ W_dec - y).square().sum() / len(pre)

    (gradient,) = torch.autograd.grad(loss(), kept.threshold)
    torch.testing.assert_close(gradient, smoothed_slopes(loss, kept), rtol=0.03, atol=0)


@pytest.mark.parametrize("sparsity", ["step", "tanh", "quadratic"])
def test_pre_activations_get_the_slope_of_what_is_above_the_threshold(sparsity):
    kept, pre = thresholds(sparsity=sparsity, target_l0=2), evenly(200).requires_grad_()
    on = pre.detach() > kept.threshold.detach()
    (through,) = torch.autograd.grad(kept(pre).sum(), pre)
    assert torch.equal(through, on.double())
    loss = kept.rule.losses(coded(pre, kept))["l0"]
    (by_penalty,) = torch.autograd.grad(loss, pre, allow_unused=True)
    if sparsity == "tanh":
        expected = on * 4 * (1 - (4 * pre.detach()).tanh().square()) / len(pre)
        torch.testing.assert_close(by_penalty, expected)
    else:
        assert by_penalty is None or not by_penalty.any()


def test_the_pre_activation_loss_pulls_up_the_dead_alone():
    kept, pre = thresholds(pre_act=0.5), evenly(200).requires_grad_()
    dead = torch.tensor([True, False, False])
    loss = kept.rule.losses(coded(pre, kept, dead, pressure=0.0))["pre_act"]
    below = (kept.threshold - pre)[:, 0].clamp_min(0)
    torch.testing.assert_close(loss, 0.5 * below.mean())
    (gradient,) = torch.autograd.grad(loss, pre)
    assert (gradient[:, 0] < 0).any()
    assert not gradient[:, 1:].any()
    assert "pre_act" not in kept.rule.losses(coded(pre, kept))


def test_thresholds_stay_at_zero_or_above():
    kept = thresholds()
    kept.threshold.data -= 0.6
    kept.constrain()
    torch.testing.assert_close(kept.threshold.data, torch.tensor([0, 0.2, 0.5]).double())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bandwidth": 0}, "bandwidth is 0"),
        ({"sparsity": "quadratic", "target_l0": 41}, r"target_l0 is 41: .* 40 latents"),
    ],
)
def test_a_jumprelu_that_cannot_learn_is_refused(options, said):
    with pytest.raises(BadInput, match=said):
        Selection(select_named("jumprelu", options), 40)


# Gated


def test_a_gated_code_has_magnitudes_of_its_own_where_its_gates_are_open():
    kept, pre = Selection(select_named("gated", {}), 40), randn(30, 40)
    assert torch.equal(kept(pre), pre.relu())  # as it begins
    kept.r_mag.data.copy_(randn(40, seed=2))
    kept.b.data.copy_(randn(40, seed=3))
    expected = (pre > 0) * (kept.r_mag.exp() * pre + kept.b).clamp_min(0)
    torch.testing.assert_close(kept(pre), expected)


@pytest.mark.parametrize("norm", ["none", "sae"])
def test_gates_learn_from_a_reconstruction_by_a_decoder_that_is_held_fixed(norm):
    dictionary, x = make_dictionary("gated", norm), randn(64, 12)
    pre = dictionary.pre(x)
    dead = torch.zeros(160) > 0
    found = select_losses(dictionary, {"x": x}, pre, dictionary.code(pre), dead, 0.5)
    c = dictionary.W_dec.norm(dim=1) if norm == "sae" else 1.0
    torch.testing.assert_close(found["l1"], 0.5 * 0.3 * (pre.relu() * c).sum(dim=1).mean())
    decoded = pre.relu() @ dictionary.W_dec + dictionary.b_dec
    torch.testing.assert_close(found["gates"], (decoded - x).square().sum(dim=1).mean())
    found["gates"].backward()
    assert dictionary.W_enc.grad.norm() > 1
    assert dictionary.W_dec.grad is None or dictionary.W_dec.grad.abs().max() < 1e-4


# AbsTopK


def test_abstopk_keeps_the_farthest_from_zero_with_their_signs():
    pre = randn(30, 40)
    code = Selection(select_named("abstopk", {"k": 5}), 40)(pre)
    for row, sparse in zip(pre, code, strict=True):
        farthest = row.abs().sort(descending=True).indices[:5]
        expected = torch.zeros(40)
        expected[farthest] = row[farthest]
        assert torch.equal(sparse, expected)
    assert (code < 0).any()


def test_a_negative_code_counts_as_on():
    dictionary, x = make_dictionary("abstopk").eval(), randn(200, 12)
    measure = Measure(dictionary)
    measure.add({"x": x})
    found = measure.result("a", {"x": 0.0})
    assert found.l0 == 5
    assert found.dead == (dictionary.encode(x) == 0).all(dim=0).sum()


def test_dead_latents_of_a_signed_code_help_in_both_directions():
    pre, dead = randn(30, 40), torch.arange(40) % 3 == 0
    latents, z = code_of_dead(pre, dead, 4, signed=True)
    of_dead = pre[:, latents]
    smallest = of_dead.abs().sort(dim=1).values[:, -4:-3]
    assert torch.equal(z, of_dead * (of_dead.abs() >= smallest))
    losses, _ = Objective(helpers=[AuxK(auxk=4)])(
        make_dictionary("abstopk", d_sae=40), {"x": randn(30, 12)}, dead
    )
    assert losses["auxk"] > 0


# AuxK by level


def auxk_of(dictionary, x, dead, prefixes, *, levels):
    helper = AuxK(auxk=4, auxk_levels=levels)
    losses, now = Objective(prefixes, [helper])(dictionary, {"x": x}, dead)
    return losses.get("auxk"), now


@pytest.mark.parametrize("norm", ["none", "decoupled"])
def test_with_one_prefix_auxk_by_level_is_auxk(norm):
    dictionary, x, dead = make_dictionary("topk", norm), randn(30, 12), torch.arange(160) % 3 == 0
    plain, _ = auxk_of(dictionary, x, dead, Prefixes(), levels=False)
    by_level, _ = auxk_of(dictionary, x, dead, Prefixes(), levels=True)
    assert torch.equal(plain, by_level)


def test_the_dead_that_a_prefix_adds_learn_the_error_of_that_prefix():
    dictionary, x, dead = make_dictionary("topk"), randn(30, 12), torch.arange(160) % 3 == 0
    prefixes = Prefixes((0.25, 0.5, 1.0))
    found, now = auxk_of(dictionary, x, dead, prefixes, levels=True)
    terms, before = [], 0
    for last, y in zip((40, 80, 160), now.levels, strict=True):
        new = dead & (torch.arange(160) >= before) & (torch.arange(160) < last)
        latents, z = code_of_dead(now.pre, new, 4)
        error = (x - y["x"]).detach()
        relative = (z @ dictionary.W_dec[latents] - error).square().sum() / spread(error)
        terms.append(relative / 32 * spread(x) / len(x))
        before = last
    torch.testing.assert_close(found, sum(terms) / 3)


def spread(x):
    return (x - x.mean(dim=0)).square().sum()


def test_levels_without_dead_latents_have_no_term():
    dictionary, x, prefixes = make_dictionary("topk"), randn(30, 12), Prefixes((0.0, 0.5, 1.0))
    dead = torch.arange(160) >= 150
    assert auxk_of(dictionary, x, dead, prefixes, levels=True)[0] > 0
    assert auxk_of(dictionary, x, dead & False, prefixes, levels=True)[0] is None


# All of them


@pytest.mark.parametrize("norm", ["none", "sae"])
@every_select
def test_at_inference_a_code_does_not_depend_on_the_batch(select, norm):
    dictionary, x = make_dictionary(select, norm).eval(), randn(20, 12)
    together = dictionary.encode(x)
    for i in (0, 7):
        torch.testing.assert_close(dictionary.encode(x[i : i + 1])[0], together[i])
    assert together.any()


@every_select
def test_a_dictionary_that_ranks_by_norms_encodes_the_same_when_it_is_loaded(select, tmp_path):
    dictionary, x = make_dictionary(select, "sae").eval(), randn(50, 12)
    dictionary = dictionary.rescaled({"x": 4.0})
    save_dictionary(dictionary, tmp_path, {})
    loaded, _ = load_dictionary(tmp_path)
    torch.testing.assert_close(loaded.encode(x), dictionary.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded(x), dictionary(x), atol=1e-4, rtol=1e-4)
    written = json.loads((tmp_path / "cfg.json").read_text())["architecture"]
    assert (written == "rkstore") == (select in ("topk", "abstopk"))
    if select == "batchtopk":  # a threshold for each latent, as SAELens has them
        norms = dictionary.W_dec.norm(dim=1)
        theta = load_file(tmp_path / "sae_weights.safetensors")["threshold"]
        torch.testing.assert_close(theta * norms, torch.full((160,), 2 / 4))


@every_select
def test_each_can_be_copied_and_moved_to_double_precision(select):
    dictionary, x = make_dictionary(select).eval(), randn(20, 12)
    double = copy.deepcopy(dictionary).to(torch.float64)
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    found = double.encode(x.double())
    torch.testing.assert_close(found.float(), dictionary.encode(x), atol=1e-4, rtol=1e-4)
    double.train()
    assert double.encode(x.double()).dtype == torch.float64


PENALISED = [("relu", {}), ("gated", {}), ("jumprelu", {}), ("jumprelu", {"l0": 0, "pre_act": 1})]


@pytest.mark.parametrize(("select", "options"), PENALISED)
def test_a_penalty_that_could_be_evaded_is_refused(make_store, select, options):
    store, _ = make_store(rows=400)
    given = {"store": str(store.root), "layer": "0", "dictionary": select, "d_sae": 24} | options
    with pytest.raises(BadInput, match=r"evaded .* give a code_norm, such as sae"):
        prepare(TrainSettings(**given, unit_decoder=False))
    prepare(TrainSettings(**given, unit_decoder=False, code_norm="sae"))
    prepare(TrainSettings(**given))


def test_auxk_by_level_needs_prefixes_of_the_latents(make_store):
    store, _ = make_store(rows=400)
    with pytest.raises(BadInput, match="leave out prefix_order"):
        prepare(
            TrainSettings(
                store=str(store.root),
                layer="0",
                auxk=4,
                auxk_levels=True,
                prefixes=(0.5, 1.0),
                prefix_order="activations",
            )
        )


def test_the_l1_of_a_loss_of_means_is_converted_as_the_docstring_says():
    """``mse + l1' mean|f|``, times ``d_in``, is our loss with ``l1 = l1' d_in / d_sae``."""
    dictionary, x, theirs = make_dictionary("relu", l1=0.6 * 12 / 160), randn(30, 12), 0.6
    f, y = dictionary.encode(x), dictionary(x)
    losses, _ = Objective()(dictionary, {"x": x}, torch.zeros(160) > 0)
    expected = (y - x).square().mean() + theirs * f.mean()
    torch.testing.assert_close(sum(losses.values()), 12 * expected)
