"""Schedules: where they begin and end, what cannot be, and that training follows them."""

import json
from itertools import pairwise

import pytest
import torch
from stopped import assert_goes_on_to_the_same_bytes

from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.selects import SELECTS
from rkstore.dictionaries.selects.gated import Gated
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.errors import BadInput
from rkstore.training import step as stepping
from rkstore.training import train as module
from rkstore.training import whole
from rkstore.training.run import prepare
from rkstore.training.schedules import SHAPES, learning_rate, pressure_of
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"


@pytest.fixture
def settings(make_store, tmp_path):
    store, _ = make_store(rows=400)

    def make(**given):
        usual = {"store": str(store.root), "hook": SITE, "d_sae": 24, "k": 4, "steps": 40}
        usual |= {"batch_size": 32, "warmup": 5, "out": str(tmp_path / "checkpoints")}
        return TrainSettings(**(usual | given))

    return make


# The learning rate.


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rate_rises_over_the_warmup_to_its_peak(shape):
    rates = [learning_rate(step, 100, 9, 0.2, shape) for step in range(10)]
    assert rates == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert learning_rate(80, 100, 9, 0.2, shape) == 1


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1)])
def test_it_falls_over_its_last_share_in_its_shape(shape, middle):
    assert learning_rate(90, 100, 9, 0.2, shape) == pytest.approx(middle)
    assert learning_rate(50, 100, 9, 1.0, shape) == pytest.approx(middle)
    assert learning_rate(100, 100, 9, 0.2, shape) == (shape == "constant")


def test_a_cosine_is_half_a_period():
    rates = [learning_rate(step, 120, 0, 1.0, "cosine") for step in (0, 40, 80, 120)]
    assert rates == pytest.approx([1, 0.75, 0.25, 0])


def test_a_rate_never_rises_again():
    for shape in SHAPES:
        rates = [learning_rate(step, 100, 9, 0.4, shape) for step in range(9, 101)]
        assert all(0 <= later <= earlier for earlier, later in pairwise(rates))


def test_the_optimiser_has_the_rate_of_the_step(settings, monkeypatch):
    rates = []
    real = module.step

    def looking(run, rows, *whole):
        real(run, rows, *whole)
        rates.append(run.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(module, "step", looking)
    train(settings(lr=0.01, decay=0.5, lr_schedule="cosine"))
    assert rates == [0.01 * learning_rate(n, 40, 5, 0.5, "cosine") for n in range(40)]


# The sparsity losses.


def test_the_sparsity_losses_rise_with_the_rate_unless_they_have_a_warmup(settings):
    assert [pressure_of(settings(), n) for n in (0, 4, 5)] == pytest.approx([1 / 6, 5 / 6, 1])
    longer = settings(sparsity_warmup=19)
    assert [pressure_of(longer, n) for n in (0, 9, 19, 39)] == pytest.approx([0.05, 0.5, 1, 1])
    assert pressure_of(settings(sparsity_warmup=0), 0) == 1


def on_and_off(seed=0):
    z = torch.randn(6, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z.requires_grad_()


def gradient(rule, z):
    penalty = rule.l1 * rule.penalty(z.relu())
    return torch.autograd.grad(penalty, z)[0], penalty.item()


@pytest.mark.parametrize("p", [0.0, 1e-12, 1e-3, 0.2, 0.7, 1.0])
def test_a_penalty_of_any_power_has_the_size_of_l1_and_a_finite_gradient(p):
    z = on_and_off()
    found, size = gradient(ReLU(l1=3.0, p=p), z)
    assert size == pytest.approx(3 * z.relu().sum(dim=-1).mean().item())
    assert found.isfinite().all()
    assert (found[z <= 0] == 0).all()
    assert (found[z > 0] > 0).all()


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_activations_that_are_exactly_zero_or_all_off_give_no_infinity(p):
    for z in (torch.zeros(3, 4), torch.tensor([[0.0, 1e-38, 2.0]]), -torch.ones(2, 2)):
        found, size = gradient(ReLU(p=p), z.requires_grad_())
        assert found.isfinite().all()
        assert size == pytest.approx(z.relu().sum().item() / len(z))


def test_a_power_of_one_is_l1_to_the_bit_and_zero_is_the_limit():
    z = on_and_off()
    assert torch.equal(ReLU().penalty(z.relu()), z.relu().sum(dim=-1).mean())
    torch.testing.assert_close(gradient(ReLU(p=1e-7), z)[0], gradient(ReLU(p=0.0), z)[0])


def test_the_gradient_is_that_of_the_formula():
    z, p = on_and_off(), 0.3
    f = z.relu()
    epsilon = f[f > 0].mean().item() / 100
    g = ((1 + f / epsilon) ** p - 1) / p
    expected = torch.autograd.grad(g.sum() * (f.sum() / g.sum()).item() / len(z), z)[0]
    torch.testing.assert_close(gradient(ReLU(p=p), z)[0], expected)


def test_a_smaller_power_weighs_small_activations_more():
    z = torch.tensor([[0.1, 1.0, 5.0]], requires_grad=True)
    ratios = [
        found[0, 0] / found[0, 2] for p in (1.0, 0.5, 0.2) for found in [gradient(ReLU(p=p), z)[0]]
    ]
    assert ratios == sorted(ratios)
    assert ratios[0] == 1


@pytest.mark.parametrize("select", [ReLU, Gated])
def test_the_power_falls_over_the_last_steps_to_its_end(select):
    rule = select(p_end=0.2, anneal_steps=10)
    powers = [rule.at(step, 40).p for step in range(40)]
    assert powers[:30] == [1.0] * 30
    assert powers[34] == pytest.approx(0.6)
    assert powers[39] == 0.2
    assert [select(p_end=0.0).at(step, 41).p for step in (20, 30, 40)] == [1.0, 0.5, 0.0]
    assert select().at(39, 40).p == 1


# k.


def test_k_falls_over_the_first_steps_to_its_end():
    rule = TopK(k=4, k_start=24, k_anneal_steps=10)
    found = [rule.at(step, 40).k for step in range(40)]
    assert found[:3] == [24, 22, 20]
    assert found[10:] == [4] * 30
    assert found == sorted(found, reverse=True)
    assert TopK(k=4).at(0, 40).k == 4


@pytest.mark.parametrize("dictionary", ["topk", "batchtopk", "abstopk"])
def test_as_many_latents_are_on_as_k_says_at_the_step(settings, monkeypatch, dictionary):
    on, real = [], whole._differentiated

    def looking(run, rows):
        found = real(run, rows)
        on.append(found.l0)
        return found

    monkeypatch.setattr(whole, "_differentiated", looking)
    chosen = {"dictionary": dictionary, "k_start": 8, "k_anneal_steps": 16, "init": "tied"}
    path = train(settings(**chosen))
    config = json.loads((path / "cfg.json").read_text())
    assert [on[step] for step in (0, 8, 16, 39)] == pytest.approx([8, 6, 4, 4], abs=0.5)
    assert config.get("k", config.get("select", {}).get("k", 4)) == 4


# Runs.

ANNEALED = {
    "p": {"dictionary": "relu", "p_end": 0.2, "anneal_steps": 25, "l1": 0.3},
    "p of gates": {"dictionary": "gated", "p_end": 0.0, "l1": 0.3},
    "k": {"k_start": 20, "k_anneal_steps": 30},
    "k of a batch": {"dictionary": "batchtopk", "k_start": 20, "k_anneal_steps": 30},
    "rate and pressure": {"lr_schedule": "cosine", "decay": 1.0, "sparsity_warmup": 30},
}


@pytest.mark.parametrize("chosen", ANNEALED.values(), ids=ANNEALED)
def test_an_annealed_run_that_was_stopped_goes_on_to_the_same_bytes(settings, tmp_path, chosen):
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through")


@pytest.mark.parametrize("norm", [{}, {"code_norm": "sae", "unit_decoder": False}], ids=str)
@pytest.mark.parametrize("p", [1.0, 0.4])
def test_the_gradient_by_hand_follows_the_power(settings, monkeypatch, p, norm):
    grads = []
    for covers in (whole.fast.covers, lambda *_: False):
        run = prepare(settings(dictionary="relu", p=p, l1=0.5, **norm))
        rows = run.reading.rows(next(run.reading.batches(32, 0)), "cpu")
        assert whole.fast.covers(run.dictionary, run.objective)
        with monkeypatch.context() as patch:
            patch.setattr(whole.fast, "covers", covers)
            whole._differentiated(run, rows)
        grads.append([parameter.grad.clone() for parameter in run.dictionary.parameters()])
    for by_hand, expected in zip(*grads, strict=True):
        torch.testing.assert_close(by_hand, expected, rtol=1e-4, atol=1e-5)


def test_p_annealing_makes_a_code_sparser_at_the_same_error(settings):
    def ends(**given):
        path = train(settings(dictionary="relu", steps=300, l1=0.3, **given))
        return json.loads((path / "training.json").read_text())["history"][-1]

    plain, annealed = ends(), ends(p_end=0.2)
    assert annealed["l0"] < 0.95 * plain["l0"]
    assert annealed["fvu"] < 1.1 * plain["fvu"]


def test_what_is_annealed_in_training_is_not_written_with_a_dictionary(settings):
    path = train(settings(k_start=9, k_anneal_steps=8, code_norm="sae"))
    config = json.loads((path / "cfg.json").read_text())
    assert config["select"] == {"name": "topk", "k": 4}
    for select in SELECTS.values():
        assert select.of_training <= set(select.model_fields)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"k_start": 20, "k_anneal_steps": 40}, "k_anneal_steps is 40: annealing must be shorter"),
        ({"k_start": 20}, "give both or neither"),
        ({"k_anneal_steps": 20}, "give both or neither"),
        ({"k_start": 3, "k_anneal_steps": 20}, "k_start is 3: it must be from k, 4, to the 24"),
        ({"k_start": 25, "k_anneal_steps": 20}, "k_start is 25: it must be from k, 4, to the 24"),
        (
            {"dictionary": "relu", "p_end": 0.5, "anneal_steps": 40},
            "anneal_steps is 40: annealing must be shorter than the run of 40 steps",
        ),
        ({"dictionary": "relu", "p_end": 0.5, "steps": 1}, "annealing must be shorter"),
        ({"dictionary": "gated", "anneal_steps": 10}, "give p_end"),
        ({"dictionary": "relu", "p": 2}, "p is 2: it must be from 0 to 1"),
        ({"dictionary": "relu", "p": 0.3, "p_end": 0.5}, "p_end is 0.5: it must be from 0 to p"),
        ({"decay": 0}, "for no decay give lr_schedule constant"),
        ({"decay": 1.5}, "decay is 1.5: it must be a share"),
        ({"decay": 0.5, "lr_schedule": "constant"}, "leave out decay"),
        ({"sparsity_warmup": 40}, "sparsity_warmup is 40, of a run of 40 steps"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings, chosen, said):
    with pytest.raises(BadInput, match=said):
        train(settings(**chosen))


def test_a_select_is_the_one_of_the_step_in_every_pool(settings):
    run = prepare(settings(k_start=20, k_anneal_steps=10))
    rows = run.reading.rows(next(run.reading.batches(32, 0)), "cpu")
    stepping.step(run, rows)
    assert [pool.rule.k for pool in run.dictionary.pools] == [20]
    assert isinstance(run.dictionary.select, Selection)
    assert run.select.k == 4
