"""Whether two seeds find the same latents: their directions, compared and matched one to one.

Cosines keep their sign: a latent that points the other way is another latent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.latents.directions import Doubles, unit

# A matched pair of latents is the same one from this cosine on.
SAME = 0.7

# With more latents the matching, whose time grows as their cube, takes hours.
MOST = 16_384


@dataclass(frozen=True)
class Match:
    """Directions of two dictionaries against each other."""

    mmcs: float
    """Mean over the latents of either of the largest cosine with any of the other, mean of both
    ways (mean max cosine similarity, Sharkey et al. 2022)."""
    matched: float
    """Mean cosine of the pairs of the one-to-one matching whose sum of cosines is largest
    (Hungarian; Paulo & Belrose 2025, arXiv 2501.16615)."""
    same: float
    """Share of the pairs with a cosine of at least 0.7."""


@dataclass(frozen=True)
class Stability:
    """How far two seeds agree, with the same numbers of random directions as many and as wide."""

    decoder: Match
    encoder: Match
    decoder_chance: Match
    encoder_chance: Match
    agree: float
    """Share of the latents that have the same partner by their decoders as by their encoders, with
    both cosines at least 0.7."""


def stability(
    decoders: tuple[NDArray[np.floating], NDArray[np.floating]],
    encoders: tuple[NDArray[np.floating], NDArray[np.floating]],
    seed: int = 0,
) -> Stability:
    """Compare two dictionaries of the same sites.

    Args:
        decoders: of each ``(latents, Σ width)``, as in :mod:`.directions`.
        encoders: of each, the same latents.
        seed: of the random directions.

    Raises:
        BadInput: they are of other sites, or have more than 16,384 latents.
    """
    decoder, by_decoder, decoded = match(*decoders)
    encoder, by_encoder, encoded = match(*encoders)
    agree = (by_decoder == by_encoder) & (decoded >= SAME) & (encoded >= SAME)
    return Stability(
        decoder,
        encoder,
        chance(decoders[0].shape, decoders[1].shape, seed),
        chance(encoders[0].shape, encoders[1].shape, seed),
        float(agree.mean()),
    )


def match(
    one: NDArray[np.floating], other: NDArray[np.floating]
) -> tuple[Match, NDArray[np.int64], Doubles]:
    """Match directions ``(n, d)`` and ``(m, d)``; in pairs come the latents of the smaller.

    Returns:
        the scores; for each latent of the smaller dictionary its partner, and their cosine,
        ``(min(n, m),)`` each.

    Raises:
        BadInput: the widths differ, or there are more than 16,384 directions.
    """
    from scipy.optimize import linear_sum_assignment

    if one.shape[1] != other.shape[1]:
        raise BadInput(
            f"directions {one.shape[1]} and {other.shape[1]} wide cannot be compared: give "
            "dictionaries of the same sites"
        )
    if max(len(one), len(other)) > MOST:
        raise BadInput(
            f"matching {max(len(one), len(other)):,} latents one to one would take hours: give "
            f"dictionaries of at most {MOST:,}"
        )
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    cosines = unit(small) @ unit(large).T
    rows, partners = linear_sum_assignment(cosines, maximize=True)
    found = cosines[rows, partners]
    mmcs = (cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2
    return Match(float(mmcs), float(found.mean()), float((found >= SAME).mean())), partners, found


def chance(one: tuple[int, ...], other: tuple[int, ...], seed: int = 0) -> Match:
    """The scores of random directions of these shapes."""
    generator = np.random.default_rng(seed)
    return match(generator.standard_normal(one), generator.standard_normal(other))[0]
