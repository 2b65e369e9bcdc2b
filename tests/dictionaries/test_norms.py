"""Code norms: by which decoder norms activations are ranked and penalised."""

import pytest
import torch

from rkstore.dictionaries import SELECTS, Dictionary, select_named
from rkstore.dictionaries.losses import select_losses
from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site

A, B = Site("a", 6), Site("b", 8)
WEIGHED = [norm for norm in NORMS if norm != "none"]


def make_dictionary(norm, select="topk"):
    """Decoder rows of different length at each site."""
    wiring = Wiring((Bank(24, (A, B), (A, B)),), norm=norm)
    options = {"k": 4, "l1": 0.3, "l0": 0.3, "threshold": 0.5}
    dictionary = Dictionary(wiring, select_named(select, options))
    generator = torch.Generator().manual_seed(0)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        dictionary.get_parameter(name).data.normal_(generator=generator)
    return dictionary


def make_rows(n=50):
    generator = torch.Generator().manual_seed(1)
    return {site.hook_name: torch.randn(n, site.width, generator=generator) for site in (A, B)}


FORMULAS = {
    "none": lambda a, b: torch.ones(1, 24),  # noqa: ARG005
    "sae": lambda a, b: (a.square() + b.square()).sqrt()[None],
    "crosscoder": lambda a, b: (a + b)[None],
    "mixed": lambda a, b: ((a.square() + b.square()).sqrt() + 0.1 * (a + b))[None],
    "decoupled": lambda a, b: torch.stack([a, b]),
}


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_is_its_formula(norm):
    dictionary = make_dictionary(norm)
    a, b = (part.norm(dim=1) for part in dictionary.W_dec.split([6, 8], dim=1))
    torch.testing.assert_close(dictionary.weights(), FORMULAS[norm](a, b))


@pytest.mark.parametrize("norm", WEIGHED)
def test_the_largest_weighed_activations_stay_as_they_are(norm):
    dictionary, rows = make_dictionary(norm), make_rows()
    pre, f = dictionary.pre(rows), dictionary.encode(rows)
    for code, c in zip(f if norm == "decoupled" else [f], dictionary.weights(), strict=True):
        ranked = pre * c
        on = (ranked >= ranked.sort(dim=1).values[:, -4:-3]) & (pre > 0)
        torch.testing.assert_close(code, pre * on)


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("norm", WEIGHED)
def test_a_longer_decoder_row_and_a_smaller_activation_are_the_same_latent(norm, select):
    """So a penalty cannot be evaded: what is decoded, and what it costs, stays."""
    dictionary, other = (make_dictionary(norm, select) for _ in range(2))
    factors = torch.rand(24, generator=torch.Generator().manual_seed(2)) * 4 + 0.25
    other.W_dec.data.mul_(factors[:, None])
    other.W_enc.data.div_(factors)
    other.b_enc.data.div_(factors)
    rows = make_rows()
    torch.testing.assert_close(other.encode(rows) * factors, dictionary.encode(rows))
    for name, y in dictionary(rows).items():
        torch.testing.assert_close(other(rows)[name], y, atol=1e-4, rtol=1e-4)
    found, expected = losses(other, rows), losses(dictionary, rows)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, atol=1e-4, rtol=1e-4)


def losses(dictionary, rows):
    pre = dictionary.pre(rows)
    dead = torch.zeros(24, dtype=torch.bool)
    return select_losses(dictionary, rows, pre, dictionary.code(pre), dead, 1.0)


@pytest.mark.parametrize(
    ("banks", "norm", "said"),
    [
        ((Bank(4, (A,), (A,)),), "l2", "unknown norm 'l2': choose one of none, sae"),
        ((Bank(4, (A,), (A,)), Bank(4, (B,), (B,))), "decoupled", "all write the same sites"),
    ],
)
def test_a_norm_that_cannot_be_is_refused(banks, norm, said):
    with pytest.raises(BadInput, match=said):
        Wiring(banks, norm=norm)
