"""The gradient of a training step by hand, against automatic differentiation of the objective."""

from typing import ClassVar

import pytest
import torch

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.dictionaries.sparse import ByLatent, SparseCode, ascending
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.store.sites import Site
from rkstore.training.fast import Scratch, covers, gradients
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.base import Helper
from rkstore.training.helpers.delta import Delta
from rkstore.training.helpers.resample import Resampling
from rkstore.training.objective import Objective

# Of 40 latents 5 are too many for a list, of 160 they are few; a relu is sparse by its bias.
DENSE = [("relu", 40, 0.0), ("topk", 40, 0.0)]
SPARSE = [
    ("relu", 160, -9.0),
    ("topk", 160, 0.0),
    ("batchtopk", 160, 0.0),
    ("batchtopk", 40, 0.0),
    ("abstopk", 160, 0.0),
]
OTHER = [("jumprelu", 40, 0.0), ("gated", 40, 0.0)]
LISTED = ("topk", "batchtopk", "abstopk")
BOTH = pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE + SPARSE)

A, B, C = Site("a", 12), Site("b", 5), Site("c", 7)


def one(reads, writes, **more):
    """One bank with all latents."""
    return lambda latents: Wiring((Bank(latents, reads, writes),), **more)


def some(*banks, **more):
    """Banks ``(part, reads, writes)``, each with its part of the latents."""
    return lambda latents: Wiring(
        tuple(Bank(round(part * latents), reads, writes) for part, reads, writes in banks), **more
    )


WIRINGS = {
    "sae": one((A,), (A,), centred=True),
    "uncentred": one((A,), (A,)),
    "two sites": one((A, B), (A, B), centred=True),
    "reads one of two": one((B,), (A, B), centred=True),
    "transcoder": one((A,), (C,)),
    "several targets": one((A, B), (B, C)),
    "with a skip": one((A,), (C,), skip=True),
    "centred with a skip": one((A, B), (B, A), skip=True, centred=True),
    "one a layer": some((0.5, (A,), (A,)), (0.5, (B,), (B,)), together=False, skip=True),
    "cross-layer": some(
        (0.5, (A,), (A, B, C)), (0.3, (B,), (B, C)), (0.2, (C,), (C,)), together=True
    ),
    "cross-layer, selects apart": some((0.5, (A,), (A, B)), (0.5, (B,), (B,)), together=False),
    "dedicated": some(
        (0.2, (A,), (A,)), (0.3, (B,), (B,)), (0.5, (A, B), (A, B)), centred=True, together=True
    ),
}
NORMED = {norm: one((A, B), (A, B), norm=norm, centred=True) for norm in NORMS if norm != "none"}

PREFIXES = {
    "whole": WHOLE,
    "by latent": Prefixes((0.25, 0.5, 1.0)),
    "with the bias alone": Prefixes((0.0, 0.001, 1.0)),
    "drawn": Prefixes(draws=3),
    "by activation": Prefixes((0.0, 0.3, 1.0), order="activations"),
}
in_prefixes = pytest.mark.parametrize("prefixes", PREFIXES.values(), ids=PREFIXES)


def make_dictionary(select, d_sae, bias=0.0, wiring=WIRINGS["sae"], row_norm="none"):
    rule = select_named(select, {"k": 5, "l1": 0.3})
    dictionary = Dictionary(wiring(d_sae), rule, row_norm)
    generator = torch.Generator().manual_seed(0)
    for parameter in dictionary.parameters():
        parameter.data.normal_(generator=generator)
    for _, weights in dictionary.banks:
        weights.b_enc.data += bias
    if wiring in WIRINGS.values():
        dictionary.normalise_decoder()
    return dictionary


def make_rows(n=64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {site.hook_name: torch.randn(n, site.width, generator=generator) for site in (A, B, C)}


def differentiated(dictionary, rows, prefixes=WHOLE, helpers=(), pressure=0.7, every=3):
    """The slow, obvious way: the objective, and autograd."""
    dead, shares = some_dead(dictionary.d_sae, every), prefixes.at(step=3, seed=1)
    losses, now = Objective(prefixes, helpers)(dictionary, rows, dead, pressure, shares)
    return torch.autograd.grad(sum(losses.values()), list(dictionary.parameters())), now.f


def by_hand(dictionary, rows, prefixes=WHOLE, helpers=(), *, scratch=None, every=3, **options):
    objective, shares = Objective(prefixes, helpers), prefixes.at(step=3, seed=1)
    dead, scratch = some_dead(dictionary.d_sae, every), scratch or Scratch()
    options = {"pressure": 0.7} | options
    return gradients(dictionary, rows, scratch, objective, dead, shares=shares, **options)


def check_gradients(dictionary, expected):
    for parameter, gradient in zip(dictionary.parameters(), expected, strict=True):
        assert (parameter.grad - gradient).norm() <= 1e-6 * gradient.norm()
        assert parameter.grad.stride() == parameter.stride()


def some_dead(d_sae, every=3):
    """One latent in so many is dead, whether it fires or not; with 0 none is."""
    return torch.arange(d_sae) % every == 0 if every else torch.zeros(d_sae, dtype=torch.bool)


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_the_objective_is_the_loss_as_it_is_defined():
    dictionary, rows = make_dictionary("relu", 40), make_rows()
    x = rows["a"]
    f = ((x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc).clamp_min(0)
    error = (f @ dictionary.W_dec + dictionary.b_dec - x).square().sum(dim=1).mean()
    losses, _ = Objective()(dictionary, rows, some_dead(40), pressure=0.7)
    torch.testing.assert_close(losses["reconstruction"], error)
    torch.testing.assert_close(losses["l1"], 0.7 * 0.3 * f.sum(dim=1).mean())


def test_auxk_is_gao_et_als_times_the_variance_of_x():
    """1/32 of the relative error of the error."""
    dictionary, rows, dead = make_dictionary("topk", 40), make_rows(), some_dead(40)
    x = rows["a"]
    error = (x - dictionary(x)).detach()
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    values, latents = torch.where(dead, pre, -torch.inf).topk(4, dim=1)
    z = torch.zeros_like(pre).scatter(1, latents, values.clamp_min(0))
    relative = (z @ dictionary.W_dec - error).square().sum() / centred(error).square().sum()
    losses, _ = Objective(helpers=[AuxK(auxk=4)])(dictionary, rows, dead)
    expected = relative / 32 * centred(x).square().sum() / len(x)
    torch.testing.assert_close(losses["auxk"], expected)


@pytest.mark.parametrize("scale", [1e-2, 7.0])
def test_auxk_is_relative_to_the_scale_of_x(scale):
    """A dictionary for ``scale · x`` has a term that is the same part of the variance."""

    def part(dictionary, x):
        losses, _ = Objective(helpers=[AuxK(auxk=4)])(dictionary, {"a": x}, some_dead(40))
        return losses["auxk"] * len(x) / centred(x).square().sum()

    dictionary, x = make_dictionary("topk", 40), make_rows()["a"]
    scaled = dictionary.rescaled({"a": 1 / scale})
    torch.testing.assert_close(part(scaled, scale * x), part(dictionary, x))


def centred(rows):
    return rows - rows.mean(dim=0)


@in_prefixes
@pytest.mark.parametrize("wiring", (WIRINGS | NORMED).values(), ids=WIRINGS | NORMED)
@pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE + SPARSE + OTHER)
def test_the_gradients_are_those_of_automatic_differentiation(
    select, d_sae, bias, wiring, prefixes
):
    dictionary, x = make_dictionary(select, d_sae, bias, wiring), make_rows()
    left = prefixes.order == "activations" or dictionary.wiring.views > 1
    assert covers(dictionary, Objective(prefixes)) == (select in LISTED or not left)
    if not covers(dictionary, Objective(prefixes)):
        return
    expected, f = differentiated(dictionary, x, prefixes)
    found = by_hand(dictionary, x, prefixes)
    check_gradients(dictionary, expected)
    on = f != 0 if f.dim() == 2 else (f != 0).any(dim=0)
    assert torch.equal(found.fired, on.any(dim=0))
    assert found.l0 == pytest.approx(on.sum(dim=1).float().mean().item())


class Other(Helper):
    name: ClassVar[str] = "other"

    @property
    def asked_for(self):
        return True

    def loss(self, now):
        return now.f.sum()


def test_what_is_not_covered_is_differentiated():
    dictionary = make_dictionary("topk", 40)
    assert covers(dictionary, Objective(helpers=[AuxK(auxk=4), Resampling(resample_every=5)]))
    assert not covers(dictionary, Objective(helpers=[Other()]))
    assert not covers(make_dictionary("topk", 40, row_norm="layer_norm"), Objective())


@pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)
@BOTH
def test_a_step_tells_the_residual_of_all_written_sites(select, d_sae, bias, wiring):
    dictionary, x = make_dictionary(select, d_sae, bias, wiring), make_rows()
    _, decoded = dictionary.reconstruct(x)
    expected = torch.cat([y - x[name] for name, y in decoded.items()], dim=1).detach()
    for prefixes in (WHOLE, Prefixes((0.25, 1.0))):
        torch.testing.assert_close(by_hand(dictionary, x, prefixes).residual, expected)


@pytest.mark.parametrize(("select", "d_sae", "bias"), SPARSE)
def test_sparse_codes_are_summed_as_lists(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows()
    pre = dictionary.pre(x)
    code = dictionary.select.sparse(pre.detach())
    torch.testing.assert_close(code.dense(), dictionary.select(pre).detach())


@pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE)
def test_dense_codes_are_not(select, d_sae, bias):
    dictionary = make_dictionary(select, d_sae, bias)
    assert dictionary.select.sparse(make_rows()["a"] @ dictionary.W_enc.detach()) is None


@pytest.mark.parametrize("select", ["relu", "topk", "batchtopk"])
def test_a_code_of_nothing_moves_the_decoder_bias_alone(select):
    dictionary, x = make_dictionary(select, 160, bias=-1000.0), make_rows()
    found = by_hand(dictionary, x)
    assert found.l0 == 0
    assert not any(p.grad.any() for p in dictionary.parameters() if p is not dictionary.b_dec)
    torch.testing.assert_close(dictionary.b_dec.grad, 2 * (dictionary.b_dec - x["a"]).mean(dim=0))


@BOTH
def test_what_a_step_leaves_behind_changes_no_later_one(select, d_sae, bias):
    used, fresh = (make_dictionary(select, d_sae, bias) for _ in range(2))
    scratch = Scratch()
    by_hand(used, make_rows(100, seed=2), scratch=scratch)
    for dictionary, memory in ((used, scratch), (fresh, Scratch())):
        by_hand(dictionary, make_rows(30), scratch=memory)
    for a, b in zip(used.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@BOTH
def test_bfloat16_products_give_float32_gradients_about_as_right_as_autocast(select, d_sae, bias):
    dictionary, x = make_dictionary(select, d_sae, bias), make_rows(512)
    exact, _ = differentiated(dictionary, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = differentiated(dictionary, x)
    by_hand(dictionary, x, dtype=torch.bfloat16)
    for parameter, truth, usual in zip(dictionary.parameters(), exact, rounded, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert 0 < distance(parameter.grad, truth) < 1.5 * distance(usual, truth) + 1e-3


HELPERS = {
    "one": AuxK(auxk=1),
    "more than are dead": AuxK(auxk=1000),
    "by level": AuxK(auxk=4, auxk_levels=True),
}


@pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)
@pytest.mark.parametrize("auxk", HELPERS.values(), ids=HELPERS)
@pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE + SPARSE + OTHER)
def test_with_auxk_they_are_those_of_the_loss_with_its_term(select, d_sae, bias, auxk, wiring):
    dictionary, x = make_dictionary(select, d_sae, bias, wiring), make_rows()
    prefixes = Prefixes((0.5, 1.0))
    expected, _ = differentiated(dictionary, x, prefixes, [auxk])
    without, _ = differentiated(dictionary, x, prefixes)
    by_hand(dictionary, x, prefixes, [auxk])
    check_gradients(dictionary, expected)
    # Next to the gates' own loss on such rows the term is too small to see.
    if bias == 0 and select != "gated":
        assert any(distance(a, b) > 1e-4 for a, b in zip(without, expected, strict=True))


@in_prefixes
@pytest.mark.parametrize("wiring", [WIRINGS["sae"], WIRINGS["cross-layer"]])
@pytest.mark.parametrize(("select", "d_sae", "bias"), DENSE + SPARSE + OTHER)
def test_a_step_tells_every_loss_by_name(select, d_sae, bias, wiring, prefixes):
    dictionary, x = make_dictionary(select, d_sae, bias, wiring), make_rows()
    objective = Objective(prefixes, [AuxK(auxk=4, auxk_levels=prefixes.order == "latents")])
    if not covers(dictionary, objective):
        return
    dead, shares = some_dead(d_sae), prefixes.at(step=3, seed=1)
    expected, _ = objective(dictionary, x, dead, 0.7, shares)
    found = by_hand(dictionary, x, prefixes, objective.helpers).losses()
    assert {*found} == {*expected} >= {"reconstruction", "auxk"}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss.detach())


@pytest.mark.parametrize("wiring", NORMED.values(), ids=NORMED)
@pytest.mark.parametrize("select", ["topk", "batchtopk"])
def test_auxk_ranks_dead_latents_without_the_code_norm(select, wiring):
    dictionary, x = make_dictionary(select, 40, 0.0, wiring), make_rows()
    expected, _ = differentiated(dictionary, x, helpers=[AuxK(auxk=4)])
    by_hand(dictionary, x, helpers=[AuxK(auxk=4)])
    check_gradients(dictionary, expected)


@in_prefixes
@pytest.mark.parametrize("select", ["topk", "batchtopk", "abstopk"])
def test_the_loss_on_the_difference_of_two_sites_is_in_them(select, prefixes):
    a, b = Site("a", 12), Site("d", 12)
    dictionary = make_dictionary(select, 160, wiring=one((a, b), (a, b)))
    x = make_rows() | {"d": make_rows(seed=2)["a"]}
    expected, _ = differentiated(dictionary, x, prefixes, [Delta(delta=0.7)])
    objective = Objective(prefixes, [Delta(delta=0.7)])
    assert covers(dictionary, objective)
    found = by_hand(dictionary, x, prefixes, [Delta(delta=0.7)]).losses()
    check_gradients(dictionary, expected)
    losses, _ = objective(dictionary, x, some_dead(160), shares=prefixes.at(step=3, seed=1))
    torch.testing.assert_close(found["delta"], losses["delta"].detach())


@BOTH
def test_auxk_changes_no_latent_that_lives(select, d_sae, bias):
    with_term, without = (make_dictionary(select, d_sae, bias) for _ in range(2))
    alive = ~some_dead(d_sae)
    by_hand(with_term, make_rows(), helpers=[AuxK(auxk=4)])
    by_hand(without, make_rows())
    assert torch.equal(with_term.W_dec.grad[alive], without.W_dec.grad[alive])
    assert torch.equal(with_term.W_enc.grad[:, alive], without.W_enc.grad[:, alive])


@BOTH
def test_where_no_latent_is_dead_auxk_changes_nothing(select, d_sae, bias):
    with_term, without = (make_dictionary(select, d_sae, bias) for _ in range(2))
    by_hand(with_term, make_rows(), helpers=[AuxK(auxk=4)], every=0)
    by_hand(without, make_rows())
    for a, b in zip(with_term.parameters(), without.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_auxk_in_bfloat16_gives_about_the_same_in_float32():
    dictionary, x = make_dictionary("topk", 160), make_rows(512)
    exact, _ = differentiated(dictionary, x, helpers=[AuxK(auxk=20)])
    by_hand(dictionary, x, helpers=[AuxK(auxk=20)], dtype=torch.bfloat16)
    for parameter, truth in zip(dictionary.parameters(), exact, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert 0 < distance(parameter.grad, truth) < 0.05


def test_a_list_gives_the_products_of_the_code_written_out():
    dense = torch.relu(make_rows(30)["a"] - 1)
    tokens, latents = dense.nonzero(as_tuple=True)
    code = SparseCode(tokens, latents, dense[tokens, latents], (30, 12))
    assert torch.equal(code.dense(), dense)
    rows, others = torch.randn(12, 7), torch.randn(30, 7)
    torch.testing.assert_close(code.times(rows), dense @ rows)
    torch.testing.assert_close(ByLatent.of(code).times(code.values, others), dense.T @ others)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [3, 1, 3, 0, 1],
        [65_535, 0, 65_535, 1],
        [65_536, 0, 65_536, 1],
        [2, -1, 2, -1],
        [0.5, -0.25, 0.5],
    ],
)
def test_keys_are_sorted_and_equal_ones_keep_their_order(keys):
    expected = sorted(range(len(keys)), key=keys.__getitem__)
    found = ascending(torch.tensor(keys))
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_scratch_is_used_again_and_grows():
    scratch, kind = Scratch(), (torch.float32, torch.device("cpu"))
    large = scratch.take("a", (4, 6), *kind)
    assert scratch.take("a", (2, 6), *kind).data_ptr() == large.data_ptr()
    assert scratch.take("b", (4, 6), *kind).data_ptr() != large.data_ptr()
    assert scratch.take("a", (8, 6), *kind).shape == (8, 6)
