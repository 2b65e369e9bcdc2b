"""RkCNN as in its paper: a classifier of labelled rows.

Lu & Gweon 2025, "Random k conditional nearest neighbor for high-dimensional data", PeerJ
Computer Science 11:e2497. The probe does not use it; it takes only random subsets ranked by a
score from the paper.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Doubles
from rkstore.rkcnn.scores.base import Comparison
from rkstore.rkcnn.scores.separation import Separation
from rkstore.rkcnn.subsets import Indices, random_subsets

# Distances held at once: 32 MB.
BLOCK_DISTANCES = 2**22

# Added to a distance, so that a row equal to a fitted one has a finite likelihood; the value is
# from the R code of the authors of kCNN, github.com/hgweon/kcnn.
EPSILON = 1e-7


class RkCNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Random k conditional nearest neighbours, a scikit-learn classifier.

    Draw ``h`` random subsets of ``m`` features, keep the ``r`` of the largest separation of
    the classes, estimate class probabilities by k conditional nearest neighbours in each, and
    average them, weighted by the separation.

    For supervised probes of activations: rows are tokens, with any labels.

    >>> x, y = store.read(site, 0, 4096), store.column("position", 0, 4096)  # doctest: +SKIP
    >>> RkCNNClassifier(h=200, r=50).fit(x, y).score(x_held_out, y_held_out)  # doctest: +SKIP

    Args:
        m: features of a subset; by default the square root of their number, rounded down.
        h: subsets to draw. There may be fewer distinct ones, which are then all drawn.
        r: subsets to keep; by default a quarter of those drawn, at least ten if possible.
        k_neighbors: which nearest neighbour of each class counts. A class with fewer rows
            counts its farthest.
        power: of the distances. For densities it would be ``m``, which lets one subset decide
        everything; the R code of kCNN's authors uses 1.
        ensemble: average over the first, second … k-th neighbours (EkCNN in the paper of kCNN)
            instead of taking the k-th (kCNN).
        weighted: whether subsets are weighted by their separation, or equally.
        random_state: seed of the subsets.

    Attributes:
        classes_: ``(c,)``.
        subsets_: ``(r, m)`` int64, best first.
        scores_: ``(r,)``, the separation of each; NaN if nothing varies within the classes.
        weights_: ``(r,)``, of sum 1.
    """

    def __init__(
        self,
        m: int | None = None,
        h: int = 200,
        r: int | None = None,
        k_neighbors: int = 5,
        power: float = 1.0,
        ensemble: bool = False,
        weighted: bool = True,
        random_state: Any = 0,
    ) -> None:
        self.m = m
        self.h = h
        self.r = r
        self.k_neighbors = k_neighbors
        self.power = power
        self.ensemble = ensemble
        self.weighted = weighted
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "RkCNNClassifier":
        """Choose the subsets, and keep the rows ``(n, d)`` with their labels ``(n,)``.

        Raises:
            BadInput: a setting that does not fit the rows, or labels of one class only.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise BadInput(
                f"all {len(y)} rows have one class, {self.classes_[0]}: give at least two classes"
            )
        m, r = self._sizes(X.shape[1])
        generator = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        subsets = random_subsets(X.shape[1], m, self.h, generator)
        scores = separation(X, labels, subsets)
        # NumPy sorts NaN, an undefined score, after every number.
        best = np.argsort(-scores, kind="stable")[:r]
        self.subsets_, self.scores_ = subsets[best], scores[best]
        self.weights_ = self._weights(self.scores_)
        # Sorted, so that the rows of a class are one slice.
        order = np.argsort(labels, kind="stable")
        self._rows, self._edges = X[order], np.concatenate([[0], np.bincount(labels).cumsum()])
        return self

    def predict_proba(self, X: Any) -> Doubles:
        """Probability of each class, ``(n, c)``, in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        probabilities = np.zeros((len(X), len(self.classes_)))
        step = max(1, BLOCK_DISTANCES // len(self._rows))
        for start in range(0, len(X), step):
            block = slice(start, start + step)
            for subset, weight in zip(self.subsets_, self.weights_, strict=True):
                distances = cdist(X[block][:, subset], self._rows[:, subset])
                near = nearest_of_each_class(distances, self._edges, self.k_neighbors)
                probabilities[block] += weight * self._posterior(near)
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, ``(n,)``."""
        probabilities = self.predict_proba(X)
        classes: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return classes

    def _posterior(self, near: Doubles) -> Doubles:
        """Class probabilities ``(n, c)`` from the distances of :func:`nearest_of_each_class`."""
        if self.ensemble:
            posterior: Doubles = conditional_posterior(near, self.power).mean(axis=1)
            return posterior
        return conditional_posterior(near[:, -1], self.power)

    def _sizes(self, d: int) -> tuple[int, int]:
        """``m`` and ``r`` for ``d`` features."""
        m = math.isqrt(d) if self.m is None else self.m
        for name, value in (("m", m), ("h", self.h), ("k_neighbors", self.k_neighbors)):
            if value < 1:
                raise BadInput(f"{name} is {value}: it must be at least 1")
        if not self.power > 0:
            raise BadInput(f"power is {self.power}: it must be above 0")
        if m > d:
            raise BadInput(f"m is {m} and there are only {d} features: choose m up to {d}")
        drawn = min(self.h, math.comb(d, m))
        r = max(drawn // 4, min(drawn, 10)) if self.r is None else self.r
        if not 1 <= r <= drawn:
            raise BadInput(
                f"r is {r} and {drawn} distinct subsets are drawn: choose r from 1 to {drawn}"
            )
        return m, r

    def _weights(self, scores: Doubles) -> Doubles:
        """``(r,)`` of sum 1. A subset without a score has weight 0, unless none has one."""
        known = np.nan_to_num(scores, nan=0.0)
        if not self.weighted or known.sum() == 0:
            known = np.ones(len(scores))
        weights: Doubles = known / known.sum()
        return weights


def separation(x: Doubles, labels: Indices, subsets: Indices) -> Doubles:
    """The separation score ``(h,)`` of subsets ``(h, m)`` of labelled rows ``(n, d)``."""
    centred = (x - x.mean(axis=0)).astype(np.float32)
    comparison = Comparison(len(x), torch.from_numpy(labels.astype(np.int64)))
    return Separation().of_subsets(torch.from_numpy(centred), torch.from_numpy(subsets), comparison)


def nearest_of_each_class(distances: Doubles, edges: Indices, k: int) -> Doubles:
    """The first to k-th smallest distance to each class, ``(n, k, c)``, ascending.

    Args:
        distances: ``(n, rows)``, the rows sorted by class.
        edges: ``(c + 1,)``, the start of the rows of each class, and the end.
    """
    near = np.empty((len(distances), k, len(edges) - 1))
    for c, (start, stop) in enumerate(itertools.pairwise(edges)):
        count = min(k, stop - start)
        least = np.partition(distances[:, start:stop], count - 1, axis=1)[:, :count]
        near[:, :count, c] = np.sort(least, axis=1)
        near[:, count:, c] = near[:, count - 1, c, None]
    return near


def conditional_posterior(distances: Doubles, power: float) -> Doubles:
    """``d_c^(-power) / Σ_c d_c^(-power)`` over the last axis, that of the classes.

    With ``d_c`` the distance to the k-th nearest row of class c. The density of the class there
    is estimated as ``k / (n_c · volume)``, the prior as ``n_c / n``, so ``n_c`` cancels (Gweon,
    Schonlau & Steiner 2019, "The k conditional nearest neighbor algorithm for classification
    and class probability estimation", PeerJ Computer Science 5:e194).
    """
    logarithms = -power * np.log(distances + EPSILON)
    likelihoods = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    posterior: Doubles = likelihoods / likelihoods.sum(axis=-1, keepdims=True)
    return posterior
