"""A dictionary made of weights that were read from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.folding import centred
from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.selects import Select, select_named
from rkstore.dictionaries.selects.batchtopk import REMEMBERED
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.store.sites import Site


@dataclass(frozen=True, eq=False)
class Filling:
    """The weights of one bank.

    Args:
        W_enc: ``(d_in, latents)``.
        b_enc: ``(latents,)``.
        W_dec: ``(latents, d_out)``.
        W_skip: ``(d_out, d_in)``, if the wiring has skips.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    W_skip: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Ruled:
    """A select, and its state on one pool of latents after another.

    Args:
        states: one for all pools, or one for each.
    """

    select: Select
    states: Sequence[Mapping[str, Tensor]] = ({},)


def relu() -> Ruled:
    return Ruled(select_named("relu", {}))


def topk(k: int) -> Ruled:
    return Ruled(select_named("topk", {"k": k}))


def jumprelu(*thresholds: Tensor) -> Ruled:
    """``z · [z > θ]``, with a ``θ (latents,)`` for each pool."""
    return Ruled(select_named("jumprelu", {}), [{"threshold": found} for found in thresholds])


def batchtopk(k: int, *thresholds: Tensor) -> Ruled:
    """BatchTopK after training, with a threshold for each pool; below 0 it has none yet."""
    done = torch.tensor(REMEMBERED)
    states = [
        {"threshold": found.reshape(()).clamp_min(0), "batches": done} for found in thresholds
    ]
    return Ruled(select_named("batchtopk", {"k": k}), states)


@torch.no_grad()
def filled(
    wiring: Wiring,
    rule: Ruled,
    banks: Sequence[Filling],
    b_dec: Tensor,
    row_norm: str = "none",
) -> Dictionary:
    """The dictionary of a wiring with these weights, rounded to float32.

    Args:
        banks: one for each of the wiring's.
        b_dec: of all sites that are written.
    """
    dictionary = Dictionary(wiring, rule.select, row_norm)
    _copy(dictionary.b_dec, b_dec)
    for i, ((_, weights), bank) in enumerate(zip(dictionary.banks, banks, strict=True)):
        for target, source in zip(weights, (bank.W_enc, bank.b_enc, bank.W_dec), strict=True):
            _copy(target, source)
        if bank.W_skip is not None:
            _copy(dictionary.skip(i), bank.W_skip)
    pools = dictionary.pools
    states = [*rule.states] * len(pools) if len(rule.states) == 1 else rule.states
    for pool, state in zip(pools, states, strict=True):
        pool.load_state_dict(state)
    return dictionary


def autoencoder(
    w: Mapping[str, Tensor], rule: Ruled, site: Site, *, subtracts: bool, row_norm: str = "none"
) -> Dictionary:
    """An autoencoder of one site.

    Args:
        w: its weights under our names.
        subtracts: whether its encoder reads ``x - b_dec``, or ``x``.
    """
    w = {name: w[name].double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    w = w if subtracts else centred(w)
    wiring = Wiring((Bank(len(w["b_enc"]), (site,), (site,)),), centred=True)
    bank = Filling(w["W_enc"], w["b_enc"], w["W_dec"])
    return filled(wiring, rule, [bank], w["b_dec"], row_norm)


def transcoder(
    w: Mapping[str, Tensor], rule: Ruled, reads: Site, writes: Site, row_norm: str = "none"
) -> Dictionary:
    """A transcoder; ``w`` may have a ``W_skip``."""
    bank = Filling(w["W_enc"], w["b_enc"], w["W_dec"], w.get("W_skip"))
    skip = "W_skip" in w
    wiring = Wiring((Bank(len(w["b_enc"]), (reads,), (writes,)),), skip=skip)
    return filled(wiring, rule, [bank], w["b_dec"], row_norm)


def thresholds(dictionary: Dictionary) -> list[Tensor | None]:
    """For each pool the thresholds of its latents ``(latents,)``, or None for those of a ReLU.

    Raises:
        BadInput: whether a latent is on depends on others, or on more than a threshold.
    """
    found: list[Tensor | None] = []
    for select, state in at_inference(dictionary):
        if select.name not in ("relu", "jumprelu"):
            raise BadInput(f"{select.name} has no threshold for each latent")
        theta = state.get("threshold")
        found.append(None if theta is None else theta.detach().clamp_min(0))
    return found


@torch.no_grad()
def at_inference(dictionary: Dictionary) -> list[tuple[Select, dict[str, Any]]]:
    """The select of each pool after training, and its state, for plain pre-activations.

    Those that are weighed by decoder norms, ``z c > θ``, become ``z > θ / c``.

    Raises:
        BadInput: the norms rank latents, so they cannot be taken into thresholds.
    """
    found, first = [], 0
    for pool in dictionary.pools:
        select, state = pool.rule.at_inference(pool, pool.latents)
        if dictionary.wiring.norm != "none":
            if not select.by_latent or dictionary.wiring.views > 1:
                raise BadInput(f"{select.name} ranks by decoder norms")
            c = dictionary.weights()[0, first : first + pool.latents].clamp_min(1e-12)
            plain = Selection(select, pool.latents)
            plain.load_state_dict(state)
            plain.rescale(c)
            state = plain.state_dict()
        found.append((select, dict(state)))
        first += pool.latents
    return found


def _copy(target: Tensor, source: Tensor) -> None:
    assert target.shape == source.shape
    target.copy_(source)
