"""Clipping, the projected gradient, the moving average of the weights: each by its formula."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from stopped import assert_goes_on_to_the_same_bytes
from test_schedules import SITE
from test_schedules import settings as settings  # a fixture
from torch.nn.functional import normalize

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.training import step as stepping
from rkstore.training.average import dictionary_for_use
from rkstore.training.checkpoint import STATE, Diverged
from rkstore.training.optim import clip
from rkstore.training.run import prepare
from rkstore.training.train import train

SELECTS = ("relu", "topk", "batchtopk", "jumprelu", "gated")


def stepped(run, steps):
    """Make some steps, and give the weights after each."""
    batches = run.reading.batches(32, 0)
    after = []
    for _ in range(steps):
        stepping.step(run, run.reading.rows(next(batches), "cpu"))
        after.append(copy.deepcopy(run.dictionary.state_dict()))
    return after


# Clipping.


def norm_of(parameters):
    return torch.cat([p.grad.flatten() for p in parameters]).norm()


@pytest.mark.parametrize(("most", "left"), [(1.0, 1.0), (0.01, 0.01), (1e6, None)])
def test_clipping_bounds_the_norm_of_all_gradients_and_keeps_their_direction(most, left):
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((5, 3), (7,), ())]
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 2.0 + i)
    begun, whole = [p.grad.clone() for p in parameters], norm_of(parameters)
    found = clip([("p", p) for p in parameters], most)
    torch.testing.assert_close(found, whole)
    factor = 1 if left is None else left / whole
    assert norm_of(parameters) <= min(most, whole) * (1 + 1e-6)
    for parameter, before in zip(parameters, begun, strict=True):
        torch.testing.assert_close(parameter.grad, before * factor)


@pytest.mark.parametrize("dictionary", ["topk", "jumprelu"])
def test_no_step_is_made_with_a_longer_gradient(settings, monkeypatch, dictionary):
    norms, real = [], stepping.clip

    def looking(trained, *given):
        found = real(trained, *given)
        norms.append(norm_of([parameter for _, parameter in trained]).item())
        return found

    monkeypatch.setattr(stepping, "clip", looking)
    path = train(settings(clip=0.5, dictionary=dictionary))
    assert len(norms) == 40
    assert max(norms) <= 0.5 * (1 + 1e-5)
    history = json.loads((path / "training.json").read_text())["history"]
    assert all(entry["grad_norm"] > 0.5 for entry in history)


def test_a_norm_is_on_record_only_where_it_is_clipped(settings):
    history = json.loads((train(settings()) / "training.json").read_text())["history"]
    assert all("grad_norm" not in entry for entry in history)


def test_a_bound_that_is_never_met_changes_nothing(settings):
    plain, bounded = (load_file(train(settings(clip=most)) / STATE) for most in (None, 1e9))
    assert all(torch.equal(tensor, bounded[name]) for name, tensor in plain.items())


def test_a_gradient_without_a_finite_norm_is_a_divergence(settings):
    run = prepare(settings(clip=1.0))
    run.step = 39
    rows = {SITE: torch.full((32, 12), 1e18)}
    with pytest.raises(Diverged, match="not finite"):
        stepping.step(run, rows)


# Adam on unit rows.


def test_a_step_is_that_of_constrained_adam(settings):
    """dictionary_learning: g - (g·w) w, then Adam, then w / ‖w‖."""
    run = prepare(settings(warmup=0, lr_schedule="constant", steps=10))
    own = copy.deepcopy(run.dictionary)
    adam = torch.optim.Adam(own.parameters(), lr=run.settings.lr)
    batches = run.reading.batches(32, 0)
    for _ in range(10):
        rows = run.reading.rows(next(batches), "cpu")
        adam.zero_grad()
        sum(own.loss(rows).values()).backward()
        unit = normalize(own.W_dec.detach(), dim=1)
        own.W_dec.grad -= (own.W_dec.grad * unit).sum(dim=1, keepdim=True) * unit
        adam.step()
        own.W_dec.data = normalize(own.W_dec.data, dim=1)
        stepping.step(run, rows)
    for name, parameter in own.named_parameters():
        torch.testing.assert_close(
            run.dictionary.get_parameter(name), parameter, rtol=1e-3, atol=1e-4
        )


# The average.


@pytest.mark.parametrize("dictionary", SELECTS)
def test_the_average_is_its_formula(settings, dictionary):
    run, beta = prepare(settings(ema=0.8, dictionary=dictionary)), 0.8
    after = stepped(run, 12)
    for name, last in after[-1].items():
        if not last.is_floating_point():
            continue
        terms = [beta ** (11 - i) * weights[name].double() for i, weights in enumerate(after)]
        expected = (1 - beta) * sum(terms) / (1 - beta**12)
        torch.testing.assert_close(run.held[f"average.{name}"].double(), expected)


def test_after_one_step_it_is_the_weights_to_the_bit(settings):
    run = prepare(settings(ema=0.999))
    (after,) = stepped(run, 1)
    for name, tensor in after.items():
        assert torch.equal(run.held[f"average.{name}"], tensor)


def test_the_average_is_what_is_saved_and_the_run_goes_on_with_its_weights(settings):
    path = train(settings(ema=0.9, norm="none", name="averaged"))
    plain = load_file(train(settings(norm="none", name="plain")) / STATE)
    state, saved = load_file(path / STATE), load_dictionary(path)[0]
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(state[name], plain[name])
        assert not torch.equal(saved.get_parameter(name), state[name])
    torch.testing.assert_close(saved.W_enc, state["average.W_enc"])
    torch.testing.assert_close(saved.W_dec, normalize(state["average.W_dec"], dim=1))


def test_without_an_average_the_weights_themselves_are_for_use(settings):
    run = prepare(settings())
    assert dictionary_for_use(run) is run.dictionary


@pytest.mark.parametrize("dictionary", ["topk", "batchtopk"])
def test_a_stopped_run_with_both_goes_on_to_the_same_bytes(settings, tmp_path, dictionary):
    chosen = {"ema": 0.95, "clip": 1.0, "dictionary": dictionary, "auxk": 4}
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"clip": 0}, "clip is 0: it must be above 0, .*leave it out"),
        ({"clip": -1}, "clip is -1: it must be above 0"),
        ({"ema": 0}, "ema is 0: it must be between 0 and 1"),
        ({"ema": 1}, "ema is 1: it must be between 0 and 1, .*leave it out"),
        ({"ema": 0.9, "resample_every": 5}, "leave out one of them"),
    ],
)
def test_what_cannot_be_is_refused(settings, chosen, said):
    with pytest.raises(BadInput, match=said):
        train(settings(**chosen))
