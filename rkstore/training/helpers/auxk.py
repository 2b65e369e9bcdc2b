"""AuxK: dead latents learn to reconstruct the residual of the living ones.

Gao et al. (2024, arXiv 2406.04093), appendix A.2. With the error ``e = x - x̂``, no gradient
through it, and ``z`` the ``k`` largest pre-activations of a token among the dead latents, if
above zero, the loss has another term, ``1/32 · ‖e - z W_dec‖²``. In their code both terms are
relative, each to the variance of what it reconstructs; the loss here is that one times the
variance of ``x``, which leaves the main term as it is and makes the other

    1/32 · (Σ‖x - x̄‖² / Σ‖e - ē‖²) · ‖e - z W_dec‖² / n

Of a signed code ``z`` are the pre-activations farthest from zero, with their signs.

With ``--auxk-levels`` a Matryoshka dictionary has one such term for each prefix, their mean: the
dead latents that a prefix adds to the one before reconstruct the error of that prefix, which is
what they would be trained on if they fired (SAELens since 6.37, where it is their sum, as it is of
the prefix losses).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.training.helpers.base import Helper

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.rows import Rows
    from rkstore.dictionaries.wirings import Wiring
    from rkstore.training.objective import Pass

COEFFICIENT = 1 / 32


class AuxK(Helper):
    """The term above, with ``auxk`` dead latents of each token."""

    name = "auxk"
    auxk: int = option(
        0,
        "Dead latents per token that learn to reconstruct the residual of the living ones, the "
        "auxiliary loss of Gao et al. Where many die it about halves them, for steps 1.2 times as "
        "long; 0, off, as with --init datapoint few die.",
        least=0,
    )
    auxk_levels: bool = option(
        False,
        "Let the dead latents that each prefix adds reconstruct the residual of that prefix, "
        "--auxk of them; by default all reconstruct that of the whole code.",
        newer=True,
    )

    @property
    def asked_for(self) -> bool:
        return self.auxk > 0

    def check(self, wiring: Wiring) -> None:
        if self.auxk > wiring.latents:
            raise BadInput(
                f"--auxk is {self.auxk}: it must be from 0 to the {wiring.latents} latents"
            )

    def loss(self, now: Pass) -> Tensor | None:
        if not self.auxk_levels:
            return self._term(now, now.dead, now.decoded)
        news = added(now.dictionary, now.shares)
        terms = [
            self._term(now, now.dead & new, y) for new, y in zip(news, now.levels, strict=True)
        ]
        there = [term for term in terms if term is not None]
        return sum(there[1:], there[0]) / len(terms) if there else None

    def _term(self, now: Pass, dead: Tensor, decoded: Rows) -> Tensor | None:
        """The term of these dead latents, for the error of that reconstruction."""
        signed = now.dictionary.pools[0].rule.signed
        found = code_of_dead(now.pre, dead, self.auxk, signed=signed)
        if found is None:
            return None
        latents, z = found
        f = now.pre.new_zeros(now.pre.shape).index_copy(1, latents, z)
        views = now.dictionary.wiring.views
        (guess,) = now.dictionary.decodings(
            f.expand(views, *f.shape) if views > 1 else f, bias=False
        )
        errors = {name: (now.rows[name] - y).detach() for name, y in decoded.items()}
        targets = [now.rows[name] for name in errors]
        weights = weight(targets, list(errors.values()), now.world)
        terms = [(guess[name] - error).square().sum() for name, error in errors.items()]
        return weights * sum(terms[1:], terms[0]) / len(now.pre)


def added(dictionary: Dictionary, shares: Sequence[float]) -> list[Tensor]:
    """For each prefix which latents it has more than the one before, bool ``(latents,)``."""
    import torch

    news, before = [], 0.0
    for share in shares:
        new, first = dictionary.b_dec.new_zeros(dictionary.d_sae, dtype=torch.bool), 0
        for bank in dictionary.wiring.banks:
            new[first + round(before * bank.latents) : first + round(share * bank.latents)] = True
            first += bank.latents
        news.append(new)
        before = share
    return news


def code_of_dead(
    pre: Tensor, dead: Tensor, k: int, *, signed: bool = False, across: World = ALONE
) -> tuple[Tensor, Tensor] | None:
    """Numbers of the dead latents ``(d,)`` and their code ``z (batch, d)``; None if none is dead.

    Args:
        pre: pre-activations of all latents, ``(batch, latents)``.
        dead: which are dead, bool ``(latents,)``.
        signed: whether the code may be negative.
        across: the processes that the latents are spread over; None if none is dead in any.
    """
    latents = dead.nonzero().squeeze(1)
    if not (count := across.total(len(latents))):
        return None
    of_dead = pre[:, latents]
    if k >= count:
        return latents, of_dead if signed else of_dead.relu()
    ranked = of_dead.abs() if signed else of_dead
    places = ranked.topk(min(k, len(latents)), dim=1, sorted=False).indices
    values = of_dead.gather(1, places)
    if across.size > 1:
        values = values * across.among(ranked.gather(1, places), k)
    z = pre.new_zeros((len(pre), len(latents)))
    return latents, z.scatter(1, places, values if signed else values.relu())


def weight(y: list[Tensor], error: list[Tensor], world: World = ALONE) -> Tensor:
    """The factor of ``‖e - z W_dec‖² / n``, a scalar.

    Args:
        y: targets ``(batch, width)``, one matrix per written site.
        error: of their reconstructions, the same shapes.
        world: the processes that the batch is spread over.
    """
    variation, left = (_variation(parts, world) for parts in (y, error))
    return COEFFICIENT * variation / left.clamp_min(1e-12)


def _variation(parts: list[Tensor], world: World) -> Tensor:
    """The sum of squares about the mean, a scalar."""
    sums = [(part - world.mean(part.mean(dim=0))).square().sum() for part in parts]
    return world.sum(sum(sums[1:], sums[0]))
