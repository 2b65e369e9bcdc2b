"""A dictionary against the features that are really there, each score with its chance level.

As in SAELens' SynthSAEBench (arXiv 2602.14687), cosines count without their sign, and a mean over
latents includes the dead ones. A latent fires where its code is not zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rkstore.errors import BadInput
from rkstore.planted.forest import Doubles, Indices

# Rows as short as this have no ratio of norms.
LEAST_NORM = 1e-6


@dataclass(frozen=True)
class DirectionScores:
    """Directions of ``L`` latents against those of ``F`` features."""

    mean_max_cosine: float
    """Mean over features of the largest |cosine| with any latent."""
    mcc: float
    """Mean |cosine| of latent and feature in the one-to-one matching with the largest sum (arXiv
    2505.20254), over the ``min(L, F)`` pairs."""
    uniqueness: float
    """Different features that are closest to a latent, divided by ``L``."""


def direction_scores(decoder: NDArray[Any], features: NDArray[Any]) -> DirectionScores:
    """Compare decoder directions with the true ones.

    For several sites, give both with the sites' columns concatenated.

    Args:
        decoder: ``(L, d)``; a row of zeros is close to nothing.
        features: ``(F, d)``, none of them zero: those that are part of the site.

    Raises:
        BadInput: the shapes do not fit, a number is not finite, or a feature is zero.
    """
    cosines = _cosines(decoder, features)
    latents, matched = linear_sum_assignment(cosines, maximize=True)
    return DirectionScores(
        float(cosines.max(axis=0).mean()),
        float(cosines[latents, matched].mean()),
        len(np.unique(cosines.argmax(axis=1))) / len(cosines),
    )


def chance_directions(
    decoder: NDArray[Any], features: NDArray[Any], draws: int = 10, seed: int = 0
) -> DirectionScores:
    """The mean scores of random directions, as many and as wide as the decoder's."""
    generator = np.random.default_rng(seed)
    drawn = [
        direction_scores(generator.standard_normal(decoder.shape), features) for _ in range(draws)
    ]
    return DirectionScores(
        *(
            float(np.mean([getattr(scores, name) for scores in drawn]))
            for name in ("mean_max_cosine", "mcc", "uniqueness")
        )
    )


def best_features(decoder: NDArray[Any], features: NDArray[Any]) -> Indices:
    """``(L,)``: the feature with the largest |cosine| with each latent."""
    best: Indices = _cosines(decoder, features).argmax(axis=1)
    return best


@dataclass(frozen=True)
class FiringScores:
    """Each latent as a classifier of whether its best feature fires: means over all latents."""

    precision: float
    """Of the rows where the latent fires, in how many the feature does; 0 if it never fires."""
    recall: float
    """Of the rows where the feature fires, in how many the latent does; 0 if it never fires."""
    f1: float
    """Harmonic mean of the two."""
    accuracy: float
    """In how many rows either both fire or neither."""


@dataclass(frozen=True)
class CodeScores:
    """A dictionary's code and reconstructions against the true code."""

    firing: FiringScores
    chance: FiringScores
    """The same if the rows of the code were permuted: how often each fires stays, which rows does
    not. Exact counts in expectation; nothing is drawn."""
    l0: float
    """Mean latents that fire in a row."""
    true_l0: float
    """Mean features that fire in a row."""
    dead: int
    """Latents that never fired."""
    shrinkage: float | None
    """Mean of ‖x̂‖ / ‖x‖ over rows; below 1, reconstructions are too short. None without rows."""


class CodeCounts:
    """Counts of what fires, added up batch by batch; the order of batches does not matter."""

    def __init__(self, best: Indices) -> None:
        """Count for latents whose features are ``best (L,)``: see :func:`best_features`."""
        self.best, self.rows = best, 0
        self._latent = np.zeros(len(best), np.int64)
        self._feature = np.zeros(len(best), np.int64)
        self._both = np.zeros(len(best), np.int64)
        self._true, self._ratio, self._measured = 0, 0.0, 0

    def add(
        self,
        code: NDArray[Any],
        true_code: NDArray[Any],
        x: NDArray[Any] | None = None,
        reconstruction: NDArray[Any] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            code: ``(n, L)``.
            true_code: ``(n, F)``, of the same rows and of the features that ``best`` numbers.
            x: ``(n, d)``, the same rows; with ``reconstruction``, for the shrinkage.

        Raises:
            BadInput: the shapes do not fit.
        """
        if code.ndim != 2 or true_code.ndim != 2 or len(code) != len(true_code):
            raise BadInput(
                f"the code is {code.shape} and the true code {true_code.shape}: give both of the "
                "same rows"
            )
        if code.shape[1] != len(self.best) or self.best.max(initial=-1) >= true_code.shape[1]:
            raise BadInput(
                f"the code has {code.shape[1]} latents and the true code {true_code.shape[1]} "
                f"features: the {len(self.best)} latents were matched to other features"
            )
        fires, true = code != 0, true_code != 0
        feature = true[:, self.best]
        self.rows += len(code)
        self._latent += fires.sum(axis=0)
        self._feature += feature.sum(axis=0)
        self._both += (fires & feature).sum(axis=0)
        self._true += int(true.sum())
        if x is not None and reconstruction is not None:
            if x.shape != reconstruction.shape or len(x) != len(code):
                raise BadInput(
                    f"x is {x.shape} and its reconstruction {reconstruction.shape}: give both of "
                    f"the {len(code)} rows of the code"
                )
            norm = np.linalg.norm(x.astype(np.float64), axis=1)
            own = np.linalg.norm(reconstruction.astype(np.float64), axis=1)
            long = norm > LEAST_NORM
            self._ratio += float((own[long] / norm[long]).sum())
            self._measured += int(long.sum())

    def merge(self, other: "CodeCounts") -> None:
        """Add the counts of other rows."""
        self.rows += other.rows
        self._latent += other._latent
        self._feature += other._feature
        self._both += other._both
        self._true += other._true
        self._ratio += other._ratio
        self._measured += other._measured

    def scores(self) -> CodeScores:
        """The scores of all batches.

        Raises:
            BadInput: none was added.
        """
        if not self.rows:
            raise BadInput("there are no rows to score: add a batch first")
        expected = self._latent * (self._feature / self.rows)
        return CodeScores(
            self._firing(self._both.astype(np.float64)),
            self._firing(expected),
            float(self._latent.sum() / self.rows),
            self._true / self.rows,
            int((self._latent == 0).sum()),
            self._ratio / self._measured if self._measured else None,
        )

    def _firing(self, both: Doubles) -> FiringScores:
        precision = _ratio(both, self._latent)
        recall = _ratio(both, self._feature)
        f1 = _ratio(2 * precision * recall, precision + recall)
        agree = self.rows - self._latent - self._feature + 2 * both
        means = (float(each.mean()) for each in (precision, recall, f1, agree / self.rows))
        return FiringScores(*means)


def _ratio(part: Doubles, whole: NDArray[Any]) -> Doubles:
    """``part / whole``, 0 where ``whole`` is."""
    ratio: Doubles = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio


def _cosines(decoder: NDArray[Any], features: NDArray[Any]) -> Doubles:
    """``|cosine|`` of every latent and feature, ``(L, F)``."""
    for name, matrix in (("decoder", decoder), ("features", features)):
        if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
            raise BadInput(f"the {name} {matrix.shape} must be a matrix of finite numbers")
    if decoder.shape[1] != features.shape[1]:
        raise BadInput(
            f"the decoder is {decoder.shape[1]} wide and the features {features.shape[1]}: give "
            "both at the same sites"
        )
    wide, true = decoder.astype(np.float64), features.astype(np.float64)
    sizes, norms = np.linalg.norm(wide, axis=1), np.linalg.norm(true, axis=1)
    if not norms.all():
        raise BadInput(
            f"feature {int(norms.argmin())} is zero: leave out features that are not part of the "
            "site"
        )
    unit = wide / np.where(sizes > 0, sizes, 1.0)[:, None]
    cosines: Doubles = np.abs(unit @ (true / norms[:, None]).T)
    return cosines
