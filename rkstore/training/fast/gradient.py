"""The gradient of the training loss, by hand.

A bank reads ``c`` (``x - b_dec`` if the wiring is centred, else ``x``) and has the code
``f = select(c W_enc + b_enc)``. With n tokens and G prefixes, of which the i-th adds the latents
``i`` to those before, the reconstructions, their errors and the loss are

    ŷ_i = ŷ_{i-1} + Σ_banks f_i W_dec,i     ŷ_0 = b_dec + W_skip c     r_i = ŷ_i - y
    Σ_i ‖r_i‖² / (G n) + pressure · l1 · Σ f / n

and the derivatives, for what a bank reads and writes,

    D_i   = Σ_{j ≥ i} 2 r_j / (G n)                     by what the latents i write
    h_i   = (D_i W_dec,iᵀ + pressure · l1 / n) · [on]   by their pre-activations
    W_dec,i: f_iᵀ D_i      b_enc: Σ h      W_enc: cᵀ h      W_skip: D_1ᵀ c
    b_dec: Σ D_1, and, centred, - (Σ h) W_encᵀ - (Σ D_1) W_skip

That is five products of the size batch · d_in · d_sae however many prefixes there are, where
automatic differentiation needs a sixth, ``h W_encᵀ``, only to sum its rows for ``b_dec``. For a
sparse code all products but the first, which computes the code, are sums over the few latents that
are on. A code norm ranks by ``pre · c`` and keeps ``pre``, so the derivatives are the same. The
delta loss is a function of the last errors, so it adds to the last D. The term of AuxK is in
``auxk.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows, side_by_side
from rkstore.dictionaries.sparse import Code
from rkstore.training.fast.auxk import add_gradients, codes_of_dead
from rkstore.training.fast.codes import by_prefix, codes, pre_activations
from rkstore.training.fast.covers import has_formula
from rkstore.training.fast.graph import Graph
from rkstore.training.fast.parts import Dense, Listed, Part
from rkstore.training.fast.scratch import Columns, Scratch, grad_of
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.delta import Delta
from rkstore.training.objective import Objective


@dataclass(frozen=True)
class Measured:
    """Results of a step; the next one on the same scratch overwrites them.

    Args:
        residual: ŷ - y of all written sites side by side, ``(batch, d_out)``.
        fired: which latents were on for any token, bool ``(d_sae,)``.
        on: counts the latents of all tokens that were on, which takes a while.
        losses: the terms of the loss by name, scalars, which take a while as well.
    """

    residual: Tensor
    fired: Tensor
    on: Callable[[], int]
    losses: Callable[[], dict[str, Tensor]]

    @property
    def l0(self) -> float:
        """Latents that were on, mean over tokens."""
        return self.on() / len(self.residual)


@torch.no_grad()
def gradients(
    dictionary: Dictionary,
    rows: Rows,
    scratch: Scratch,
    objective: Objective,
    dead: Tensor,
    pressure: float = 1.0,
    shares: tuple[float, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Measured:
    """Set the ``grad`` of each parameter to the derivative of the loss over a batch.

    Args:
        rows: activations by site, float32 ``(batch, width)``.
        scratch: memory for the large intermediate matrices.
        objective: the loss, which must be covered.
        dead: which latents are dead, bool ``(d_sae,)``.
        pressure: fraction of the L1 penalty to apply.
        shares: the prefixes of this batch; those of the objective by default.
        dtype: of the products; all sums and results are float32.
    """
    _begin(dictionary)
    wiring, order = dictionary.wiring, objective.prefixes.order
    shares = shares or objective.prefixes.shares
    inputs = [dictionary.read(rows, bank) for bank in wiring.banks]
    n = len(inputs[0])
    blocks = pre_activations(dictionary, inputs, scratch, dtype)
    # Before the full code, which may overwrite the pre-activations.
    auxks = [helper for helper in objective.helpers if isinstance(helper, AuxK)]
    of_dead = [c for auxk in auxks for c in codes_of_dead(dictionary, blocks, auxk, dead, shares)]
    graph = None
    if has_formula(dictionary, objective):
        found = codes(dictionary, blocks, lists=order == "activations" and len(shares) > 1)
    else:
        graph = Graph(dictionary, rows, blocks, dead, pressure)
        latents = [bank.latents for bank in wiring.banks]
        found = list(torch.split(graph.f.detach(), latents, dim=1))
    l1 = pressure * dictionary.pools[0].rule.l1_weight / n
    parts = _parts(dictionary, inputs, found, (shares, order), scratch, l1, dtype)
    levels = _errors(dictionary, rows, inputs, parts, len(shares))
    D = _derivatives(levels, objective)
    if graph is None:
        sums = [part.differentiate(D) for part in parts]
    else:
        sums = _through(graph, [part for part in parts if isinstance(part, Dense)], D)
    _fill_others(dictionary, inputs, D[0], sums)
    if graph is not None:
        graph.add()
    y = [rows[site.hook_name] for site in wiring.writes]
    terms = [add_gradients(dictionary, y, inputs, levels[code.level], code) for code in of_dead]

    def losses() -> dict[str, Tensor]:
        of_select = {} if graph is None else graph.losses
        if graph is None and dictionary.pools[0].rule.l1_weight:
            total = torch.stack([part.total for part in parts]).sum()
            of_select = {"l1": l1 * dictionary.pools[0].across.sum(total)}
        of_helpers = {AuxK.name: torch.stack(terms).sum()} if terms else {}
        return _of_errors(levels, objective) | of_select | of_helpers

    return _measured(parts, levels[-1], wiring.views, losses)


def _begin(dictionary: Dictionary) -> None:
    """Give every parameter a gradient; those of the pools, which are added to, are zero."""
    for parameter in dictionary.parameters():
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    for pool in dictionary.pools:
        for parameter in pool.parameters():
            grad_of(parameter).zero_()


def _through(graph: Graph, parts: Sequence[Dense], D: Tensor) -> list[Tensor]:
    """The gradients of the parts, with the select's by autograd; ``Σ h`` of each."""
    first = parts[0]
    h = first.scratch.take("h", tuple(graph.f.shape), first.f.dtype, D.device)
    latents = [part.f.shape[1] for part in parts]
    for part, own in zip(parts, torch.split(h, latents, dim=1), strict=True):
        part.back(D, own)
    by_pre = torch.split(graph.back(h), latents, dim=1)
    return [part.encoder(own) for part, own in zip(parts, by_pre, strict=True)]


def _parts(
    dictionary: Dictionary,
    inputs: Sequence[Tensor],
    found: Sequence[Code],
    prefixes: tuple[Sequence[float], str],
    scratch: Scratch,
    l1: float,
    dtype: torch.dtype,
) -> list[Part]:
    """Every bank with its code; with a code per written site, the bank once for each."""
    wiring, banks, parts = dictionary.wiring, dictionary.banks, list[Part]()
    shares, order = prefixes
    for first in range(0, len(found), len(banks)):
        of_banks = found[first : first + len(banks)]
        if len(shares) > 1:
            of_banks = by_prefix(of_banks, shares, order)
        for x, (bank, weights), code in zip(inputs, banks, of_banks, strict=True):
            sites = bank.writes if wiring.views == 1 else bank.writes[first : first + 1]
            writes = Columns.of_sites(sites, wiring.writes)
            if isinstance(code, Tensor):
                ends = [round(bank.latents * share) for share in shares]
                parts.append(Dense(weights, x, writes, l1, code, ends, scratch))
            else:
                site = Columns.of_sites(sites, bank.writes)
                parts.append(Listed(weights, x, writes, l1, code, site, first > 0, dtype))
    return parts


def _errors(
    dictionary: Dictionary, rows: Rows, inputs: Sequence[Tensor], parts: Sequence[Part], count: int
) -> Tensor:
    """``ŷ - y`` by each prefix, ``(prefixes, batch, d_out)``."""
    y = side_by_side(rows, dictionary.wiring.writes)
    levels = y.new_zeros(count, *y.shape)
    across = dictionary.pools[0].across
    if across.first:  # it counts once where each process decodes some of the latents
        torch.sub(dictionary.b_dec, y, out=levels[0])
    for x, bank, W_skip in zip(inputs, dictionary.wiring.banks, _skips(dictionary), strict=False):
        Columns.of_sites(bank.writes, dictionary.wiring.writes).add(levels[0], x @ W_skip.T)
    for part in parts:
        part.decode(levels)
    across.add_up(levels)
    for before, level in pairwise(levels):
        level += before
    return levels


def _derivatives(levels: Tensor, objective: Objective) -> Tensor:
    """``D``: of the loss by what the latents of each prefix write, ``(prefixes, batch, d_out)``."""
    D = levels * (2 / (len(levels) * levels.shape[1]))
    for helper in objective.helpers:
        if isinstance(helper, Delta):
            first, second = levels[-1].chunk(2, dim=1)
            push = (second - first) * (2 * helper.delta / len(first))
            D[-1] += torch.cat([-push, push], dim=1)
    for i in reversed(range(1, len(D))):
        D[i - 1] += D[i]
    return D


def _of_errors(levels: Tensor, objective: Objective) -> dict[str, Tensor]:
    """The losses that are functions of the errors alone, by name."""
    n = levels.shape[1]
    losses = {"reconstruction": levels.square().sum() / (len(levels) * n)}
    for helper in objective.helpers:
        if isinstance(helper, Delta):
            first, second = levels[-1].chunk(2, dim=1)
            losses[helper.name] = helper.delta * (second - first).square().sum() / n
    return losses


def _skips(dictionary: Dictionary) -> list[Tensor]:
    """``W_skip`` of each bank, if there are any."""
    return [p for name, p in dictionary.named_parameters() if name.startswith("W_skip")]


def _fill_others(
    dictionary: Dictionary, inputs: Sequence[Tensor], D: Tensor, sums: Sequence[Tensor]
) -> None:
    """The gradients of ``b_dec`` and ``W_skip``.

    Args:
        D: derivative by what all latents write, ``(batch, d_out)``.
        sums: ``Σ h (latents,)`` of each part.
    """
    wiring, banks = dictionary.wiring, dictionary.banks
    b_dec = dictionary.b_dec.grad = D.sum(dim=0)
    across = dictionary.pools[0].across
    back = [across.sum(W_enc @ of_part) for (_, (W_enc, _, _)), of_part in zip(cycle(banks), sums)]
    for x, bank, W_skip in zip(inputs, wiring.banks, _skips(dictionary), strict=False):
        g = Columns.of_sites(bank.writes, wiring.writes).of(D)
        torch.mm(g.T, x, out=grad_of(W_skip))
        back.append(g.sum(dim=0) @ W_skip)
    if wiring.centred:
        for bank, of_bank in zip(cycle(wiring.banks), back):
            Columns.of_sites(bank.reads, wiring.writes).add(b_dec, of_bank, alpha=-1)


def _measured(
    parts: Sequence[Part],
    residual: Tensor,
    views: int,
    losses: Callable[[], dict[str, Tensor]],
) -> Measured:
    """What is known of the step."""
    fired = [part.fired for part in parts]
    if views == 1:
        return Measured(residual, torch.cat(fired), lambda: sum(part.on for part in parts), losses)

    def on() -> int:
        entries = [part.entries for part in parts if isinstance(part, Listed)]
        return len(torch.unique(torch.cat(entries)))

    return Measured(residual, torch.stack(fired).any(dim=0), on, losses)
