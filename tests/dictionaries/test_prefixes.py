"""Prefixes: the first parts of a code, by themselves."""

import pytest
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.prefixes import WHOLE, Prefixes, by_activation
from rkstore.errors import BadInput
from rkstore.training.objective import Objective


@pytest.fixture
def dictionary():
    made = Dictionary.of_site(6, 16, select_named("topk", {"k": 4}))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.normal_(generator=generator)
    return made


@pytest.fixture
def rows():
    return {"x": torch.randn(50, 6, generator=torch.Generator().manual_seed(1))}


def error_of(y, x):
    return (y - x).square().sum(dim=1).mean()


def losses(dictionary, rows, prefixes, shares=None):
    return Objective(prefixes)(dictionary, rows, torch.zeros(16) > 0, shares=shares)[0]


@pytest.mark.parametrize("order", ["latents", "activations"])
def test_one_prefix_is_a_plain_dictionary(dictionary, rows, order):
    assert losses(dictionary, rows, Prefixes(order=order)) == losses(dictionary, rows, WHOLE)


def test_the_loss_is_the_mean_of_the_errors_of_all_prefixes(dictionary, rows):
    f, x = dictionary.encode(rows), rows["x"]
    by_hand = [error_of(f[:, :n] @ dictionary.W_dec[:n] + dictionary.b_dec, x) for n in (4, 8, 16)]
    found = losses(dictionary, rows, Prefixes((0.25, 0.5, 1.0)))["reconstruction"]
    torch.testing.assert_close(found, torch.stack(by_hand).mean())


def test_a_prefix_of_no_latents_is_the_bias_alone(dictionary, rows):
    x = rows["x"]
    alone, whole = error_of(dictionary.b_dec, x), error_of(dictionary(x), x)
    found = losses(dictionary, rows, Prefixes((0.0, 1.0)))["reconstruction"]
    torch.testing.assert_close(found, (alone + whole) / 2)


def test_by_activation_a_prefix_is_the_code_of_a_smaller_k(dictionary, rows):
    """So one dictionary serves every k up to its own."""
    smaller = Dictionary.of_site(6, 16, select_named("topk", {"k": 2}))
    smaller.load_state_dict(dictionary.state_dict())
    x = rows["x"]
    both = (error_of(smaller(x), x) + error_of(dictionary(x), x)) / 2
    found = losses(dictionary, rows, Prefixes((0.5, 1.0), order="activations"))["reconstruction"]
    torch.testing.assert_close(found, both)


def test_the_parts_by_activation_add_up_and_begin_with_the_largest():
    f = torch.tensor([[0.0, 3.0, -5.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    first, second = by_activation(f, (0.5, 1.0))
    assert first.tolist() == [[0, 3, -5, 0], [0, 0, 0, 0]]  # half of one latent is none
    assert torch.equal(first + second, f)


def test_drawn_prefixes_depend_on_seed_and_step_alone():
    prefixes = Prefixes(draws=3)
    assert prefixes.at(5, seed=1) == prefixes.at(5, seed=1)
    assert len({prefixes.at(step, seed) for step in (5, 6) for seed in (1, 2)}) == 4
    assert all(0 < share <= 1 for share in prefixes.at(5, seed=1))
    assert prefixes.at(5, seed=1)[-1] == 1


def test_drawn_prefixes_are_trained_on(dictionary, rows):
    prefixes = Prefixes(draws=1)
    shares = prefixes.at(0, seed=0)
    drawn = losses(dictionary, rows, prefixes, shares)
    assert drawn == losses(dictionary, rows, Prefixes(shares))


@pytest.mark.parametrize(
    "shares", [(), (0.5,), (0.5, 0.25, 1), (0.5, 0.5, 1), (0.5, 1, 2), (-1, 1)]
)
def test_prefixes_rise_to_the_whole(shares):
    with pytest.raises(BadInput, match="give rising shares of the latents that end with 1"):
        Prefixes(shares)


def test_prefixes_are_fixed_or_drawn():
    with pytest.raises(BadInput, match="leave out prefixes"):
        Prefixes((0.5, 1.0), draws=2)
