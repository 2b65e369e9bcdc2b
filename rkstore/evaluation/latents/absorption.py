"""Splitting and absorption of a token class, in SAEBench's sense.

A class is split if several latents together tell it, and absorbed where its main latents are silent
on a token of it and another latent, whose decoder points along the class, fires in their place
(Chanin et al. 2024, arXiv 2409.14507; SAEBench, arXiv 2503.09532, whose thresholds it has). Three
things differ from SAEBench: classes are those of stored tokens; projections are of x - b_dec, what
latents add up to; main latents are chosen on the training rows.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.latents.directions import Doubles, unit
from rkstore.evaluation.latents.probing import Balanced, columns, correlations, regression
from rkstore.evaluation.latents.sample import Indices

# Another latent is a main one if it raises the F1 of the probe by more than this; so many at most.
F1_JUMP, MOST_MAIN = 0.03, 10

# The least cosine of an absorbing latent with the class, for whole and for partial absorption, and
# how much of a token's projection it must account for.
WHOLE_COSINE, PARTIAL_COSINE, LEAST_SHARE = 0.025, 0.1, 0.4

# Latents that may absorb a part of a token together.
ABSORBERS = 3

# Tokens that are needed.
LEAST_TOKENS = 20


@dataclass(frozen=True)
class Absorption:
    """How the latents share one token class."""

    name: str
    probe_f1: float
    """F1 of a probe of all dimensions, on as many tokens of the class as others. Where it is low
    the class has no direction, and the rest says little."""
    main: tuple[int, ...]
    """The main latents, the best first. More than one: the class is split."""
    f1: tuple[float, ...]
    """F1 of the probes of the best 1, 2 … latents, on the training rows."""
    tokens: int
    """Held-out tokens of the class that the probe of all dimensions has right."""
    silent: float
    """Share of them on which no main latent fires."""
    absorbed: float
    """Share of them that another latent absorbs as a whole."""
    absorbed_chance: float
    """The same with the decoder rows of the other latents permuted among them."""
    fraction: float
    """Mean share of a token's main latents that others have taken over: 0 where they do all of
    it, 1 where it is absorbed as a whole."""
    fraction_chance: float
    absorbers: tuple[tuple[int, int], ...]
    """The latents that absorb most tokens as a whole, each with how many."""


class Direction(NamedTuple):
    """The unit direction of a class in some sites, ``(d,)``; the tokens of the class that a probe
    along it has right; and the F1 of the probe."""

    vector: Doubles
    tokens: Indices
    f1: float


def direction_of(name: str, rows: Balanced, tokens: Indices, x: NDArray[np.floating]) -> Direction:
    """The direction of a class, by a logistic regression on all dimensions.

    Dimensions are not standardised, as the direction is to be that of the activations; one factor
    for all gives them the size that the regression's penalty is made for.

    Args:
        rows: to train the probe on, and to measure it.
        tokens: held-out rows of the class.
        x: ``(n, d)``, centred.

    Raises:
        BadInput: the probe has too few of the tokens right.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    train, y = x[rows.train].astype(np.float64), rows.y
    factor = np.sqrt(train.shape[1] / np.square(train).sum(axis=1).mean())
    fitted = LogisticRegression(max_iter=1000).fit(train * factor, y[rows.train])
    told = tokens[fitted.predict(x[tokens] * factor)] if len(tokens) else tokens
    if len(told) < LEAST_TOKENS:
        raise BadInput(
            f"{name} has {len(told)} held-out tokens that a probe of all dimensions has right, and "
            f"needs {LEAST_TOKENS} to look for absorption: use more --rows"
        )
    f1 = f1_score(y[rows.test], fitted.predict(x[rows.test] * factor))
    return Direction(unit(fitted.coef_)[0], told, float(f1))


def absorption(
    name: str,
    rows: Balanced,
    direction: Direction,
    code: Any,
    written: NDArray[np.floating],
    decoders: Doubles,
    seed: int = 0,
) -> Absorption:
    """Find the main latents of a class, and the tokens on which others take their place.

    Args:
        rows: to train probes on.
        direction: of the class, in the sites that are written.
        code: ``(n, d_sae)``, SciPy CSR.
        written: what the dictionary is to write, less ``b_dec``, ``(n, d)``.
        decoders: ``(d_sae, d)``, in the units of ``written``.
        seed: of the permutation of the decoders.

    Raises:
        BadInput: no latent tells the class.
    """
    main, f1 = _main_latents(name, rows, code)
    along, cosines = decoders @ direction.vector, unit(decoders) @ direction.vector
    here, projected = code[direction.tokens], written[direction.tokens] @ direction.vector
    found = _taken_over(here, projected, main, along, cosines)
    others = np.setdiff1d(np.arange(len(along)), main)
    moved = np.arange(len(along))
    moved[others] = np.random.default_rng([seed, 4]).permutation(others)
    by_chance = _taken_over(here, projected, main, along[moved], cosines[moved])
    absorbers = Counter(found.absorber[found.absorber >= 0].tolist())
    return Absorption(
        name=name,
        probe_f1=direction.f1,
        main=tuple(main.tolist()),
        f1=tuple(f1),
        tokens=len(direction.tokens),
        silent=float(found.silent.mean()),
        absorbed=float((found.absorber >= 0).mean()),
        absorbed_chance=float((by_chance.absorber >= 0).mean()),
        fraction=float(found.fraction.mean()),
        fraction_chance=float(by_chance.fraction.mean()),
        absorbers=tuple(absorbers.most_common(ABSORBERS)),
    )


def _main_latents(name: str, rows: Balanced, code: Any) -> tuple[Indices, list[float]]:
    """Latents of the class by falling correlation, as long as F1 jumps; and F1 for 1, 2 … of
    them."""
    from sklearn.metrics import f1_score

    train, y = code[rows.train], rows.y[rows.train]
    with_class = correlations(train, y)
    best = np.argsort(-with_class, kind="stable")[:MOST_MAIN]
    best = best[with_class[best] > 0]
    if not len(best):
        raise BadInput(f"no latent fires more on {name} than on other tokens")
    f1 = []
    for k in range(1, len(best) + 1):
        x = columns(train, best[:k])
        f1.append(float(f1_score(y, regression(x, y).predict(x))))
    jumps = np.diff(f1) > F1_JUMP
    count = len(best) if jumps.all() else int(np.argmin(jumps)) + 1
    return best[:count], f1


class _TakenOver(NamedTuple):
    """Of each token ``(n,)``: whether all main latents are silent, the latent that absorbs it or
    -1, and the share of the main latents that others have taken over."""

    silent: NDArray[np.bool_]
    absorber: Indices
    fraction: Doubles


def _taken_over(
    code: Any, projected: Doubles, main: Indices, along: Doubles, cosines: Doubles
) -> _TakenOver:
    """Look at each token: which latents write along the class, and how much of it.

    Args:
        code: of the tokens, CSR ``(n, d_sae)``.
        projected: of what is to be written on the class's direction, ``(n,)``.
        along: ``(d_sae,)``, decoder rows projected on that direction; ``cosines`` their cosines.
    """
    is_main = np.zeros(len(along), bool)
    is_main[main] = True
    found = _TakenOver(*(np.zeros(len(projected), kind) for kind in (bool, np.int64, np.float64)))
    for i, total in enumerate(projected):
        on = slice(code.indptr[i], code.indptr[i + 1])
        latents, values = code.indices[on], code.data[on]
        latents, values = latents[values != 0], values[values != 0]
        parts = values * along[latents]
        own = is_main[latents]
        found.silent[i] = not own.any()
        found.absorber[i] = _absorber(latents, parts, cosines, total) if not own.any() else -1
        others = parts[~own & (cosines[latents] >= PARTIAL_COSINE) & (parts > 0)]
        taken = np.sort(others)[-ABSORBERS:].sum()
        found.fraction[i] = _fraction(parts[own].sum(), taken, total)
    return found


def _absorber(latents: Indices, parts: Doubles, cosines: Doubles, total: float) -> int:
    """The latent that writes most of a token along the class, if it does enough of it; else -1."""
    if total <= 0 or not len(parts):
        return -1
    best = int(parts.argmax())
    enough = cosines[latents[best]] >= WHOLE_COSINE and parts[best] >= LEAST_SHARE * total
    return int(latents[best]) if enough else -1


def _fraction(main: float, taken: float, total: float) -> float:
    """Share of the main latents' part that others have taken over, in one token."""
    if total <= 0 or main >= total or taken < LEAST_SHARE * total:
        return 0.0
    if main <= 0:
        return 1.0
    taken = min(taken, total - main)
    return taken / (taken + main)
