"""How a latent's activation is spread over tokens, and a token's over latents.

What is spread are shares: a latent's activation on a token type over all of its activation, and the
same of a token over the latents. Activations count without their sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.latents.directions import Doubles

# The largest shares that concentration adds up.
TOP = 10


@dataclass(frozen=True)
class Spread:
    """Means over latents, or over tokens, of how evenly something is spread."""

    entropy: float
    """In bits: -Σ p log₂ p. 2^entropy is how many equal shares would be as spread."""
    concentration: float
    """Σ of the ten largest shares."""


@dataclass(frozen=True)
class Spreads:
    """How the activation of a dictionary is spread."""

    of_latents: Spread
    """Of a latent over token types: mean over the latents that fired."""
    of_latents_chance: Spread
    """The same with the tokens of the rows permuted: as often and as strongly active, on any
    token."""
    of_tokens: Spread
    """Of a token over latents: mean over the tokens on which a latent fires."""
    latents: int
    """Latents that fired."""
    types: int
    """Different tokens among the rows."""


def spreads(code: Any, tokens: NDArray[np.integer], seed: int = 0) -> Spreads:
    """Measure a code ``(n, d_sae)``, SciPy CSR, of rows whose token ids are ``tokens (n,)``.

    Args:
        seed: of the permutation of the tokens.
    """
    size = abs(code).astype(np.float64)
    types, of_row = np.unique(tokens, return_inverse=True)
    permuted = np.random.default_rng(seed).permutation(of_row)
    over_types = _by_type(size, of_row, len(types))
    return Spreads(
        of_latents=_mean(over_types),
        of_latents_chance=_mean(_by_type(size, permuted, len(types))),
        of_tokens=_mean(size),
        latents=int((np.diff(over_types.indptr) > 0).sum()),
        types=len(types),
    )


def _by_type(size: Any, types: NDArray[np.integer], count: int) -> Any:
    """Activation of each latent on each token type, CSR ``(d_sae, types)``."""
    from scipy.sparse import csr_matrix

    rows = np.arange(len(types))
    of_type = csr_matrix((np.ones(len(types)), (rows, types)), shape=(len(types), count))
    return (size.T @ of_type).tocsr()


def _mean(amounts: Any) -> Spread:
    """The mean over the rows of a CSR matrix that are not empty."""
    found = []
    for first, stop in zip(amounts.indptr, amounts.indptr[1:], strict=False):
        row = amounts.data[first:stop]
        if (total := row.sum()) > 0:
            share = row[row > 0] / total
            found.append((-(share * np.log2(share)).sum(), np.sort(share)[-TOP:].sum()))
    entropy, concentration = np.mean(found, axis=0) if found else (np.nan, np.nan)
    return Spread(float(entropy), float(concentration))


@dataclass(frozen=True)
class Mined:
    """Mean activation of latents when they are active: those that began as mined directions, and
    the rest. Means over the latents that fired, in units of what they write (f · ‖W_dec‖)."""

    mined: float
    rest: float
    low: float
    high: float
    """Ends of the 95 % interval of ``mined - rest``, by bootstrap over latents."""
    mined_latents: int
    rest_latents: int
    """How many of each fired."""


def mined_against_rest(
    code: Any, norms: Doubles, mined: Sequence[int], seed: int = 0, draws: int = 2000
) -> Mined | None:
    """Compare mined latents with the rest; None if none of either fired.

    Args:
        code: ``(n, d_sae)``, SciPy CSR.
        norms: of the decoder rows, ``(d_sae,)``.
        mined: numbers of the latents that began as mined directions.
    """
    fired = np.asarray((code != 0).sum(axis=0)).ravel()
    total = np.asarray(abs(code).astype(np.float64).sum(axis=0)).ravel()
    mean = np.divide(total * norms, fired, out=np.zeros(len(norms)), where=fired > 0)
    began = np.zeros(len(norms), bool)
    began[list(mined)] = True
    groups = mean[began & (fired > 0)], mean[~began & (fired > 0)]
    if not all(map(len, groups)):
        return None
    generator = np.random.default_rng(seed)

    def drawn() -> float:
        means = [generator.choice(group, len(group)).mean() for group in groups]
        return float(means[0] - means[1])

    low, high = np.quantile([drawn() for _ in range(draws)], [0.025, 0.975])
    own, rest = (float(group.mean()) for group in groups)
    return Mined(own, rest, float(low), float(high), *map(len, groups))
