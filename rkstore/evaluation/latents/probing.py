"""k-sparse probes: how well a token class is told by k latents.

As in SAEBench (Karvonen et al. 2025, arXiv 2503.09532) and Gurnee et al. (2023, arXiv 2305.01610):
the k features with the largest difference between the means of the two classes, and a logistic
regression on them. Here the difference is divided by the feature's deviation, so that latents,
dimensions and principal components are chosen alike whatever their units are. Both classes are
equally large, so chance is an accuracy of one half.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.latents.directions import Doubles
from rkstore.evaluation.latents.sample import Indices

# The most rows of a class, and of what it is told apart from, each.
MOST_TRAIN, MOST_TEST = 2000, 1000

# With fewer rows of a class an accuracy says nothing.
LEAST_TRAIN, LEAST_TEST = 40, 20

# Shufflings of the labels behind a chance level.
SHUFFLES = 3

# Resamplings of documents behind an interval.
DRAWS = 1000


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out tokens that a probe has right; half of them are of the class."""

    value: float
    low: float
    high: float
    """Ends of its 95 % interval, by bootstrap over documents."""
    shuffled: float
    """Mean of probes whose labels were shuffled, in training as in measuring: chance is 0.5."""


@dataclass(frozen=True)
class ClassProbe:
    """The probes of one token class."""

    name: str
    train: int
    test: int
    """Rows, of the class and of others alike many."""
    accuracy: Mapping[str, Mapping[int, Accuracy]]
    """By what they read (latents, raw dimensions …), then by k."""
    latents: tuple[int, ...]
    """Numbers of the latents of the largest k, the best first."""
    dense: Accuracy
    """Of a probe that reads all raw dimensions."""


@dataclass(frozen=True, eq=False)
class Balanced:
    """Rows of a class and as many others, to train on and to measure."""

    train: Indices
    test: Indices
    y: NDArray[np.bool_]
    """``(n,)`` of all rows of the sample: whether a row is of the class."""

    @classmethod
    def of(
        cls, name: str, labels: NDArray[np.int8], train: NDArray[np.bool_], seed: int
    ) -> "Balanced":
        """Draw them.

        Args:
            labels: ``(n,)``, as in :mod:`.classes`.
            train: ``(n,)``: whether a row trains.

        Raises:
            BadInput: there are too few.
        """
        generator = np.random.default_rng([seed, 2])
        found = []
        for part, most, least in (
            (train, MOST_TRAIN, LEAST_TRAIN),
            (~train, MOST_TEST, LEAST_TEST),
        ):
            both = [np.flatnonzero(part & (labels == side)) for side in (1, 0)]
            count = min(most, *map(len, both))
            if count < least:
                what = "train" if part is train else "measure"
                raise BadInput(
                    f"{name} has {len(both[0]):,} rows, and {len(both[1]):,} others, to {what} a "
                    f"probe on, and needs {least} of both: use more --rows"
                )
            drawn = [generator.choice(rows, count, replace=False) for rows in both]
            found.append(np.sort(np.concatenate(drawn)))
        own_train, own_test = found
        return cls(own_train, own_test, labels == 1)


def probe(
    name: str,
    rows: Balanced,
    features: Mapping[str, Any],
    dense: Accuracy,
    group: Indices,
    ks: Sequence[int],
    seed: int = 0,
) -> ClassProbe:
    """Probe for one class with the best k of each kind of features.

    Args:
        features: by name ``(n, m)``, dense or SciPy CSR; those named ``latents`` are recorded.
        dense: see :func:`dense_probe`.
        group: the document of each row, ``(n,)``.
        seed: of the shuffled labels.
    """
    accuracy = {}
    latents: tuple[int, ...] = ()
    for kind, all_of in features.items():
        train, test = all_of[rows.train], all_of[rows.test]
        right: dict[int, list[NDArray[np.bool_]]] = {k: [] for k in ks}
        for y, truth in _labels(rows, seed):
            best = best_features(train, y)[: max(ks)]
            x, held_out = columns(train, best), columns(test, best)
            for k in ks:
                right[k].append(regression(x[:, :k], y).predict(held_out[:, :k]) == truth)
            if kind == "latents" and not latents:
                latents = tuple(best.tolist())
        accuracy[kind] = {k: _measured(rows, right[k], group) for k in ks}
    return ClassProbe(name, len(rows.train), len(rows.test), accuracy, latents, dense)


def dense_probe(rows: Balanced, x: NDArray[Any], group: Indices, seed: int = 0) -> Accuracy:
    """The accuracy of a probe that reads every dimension of ``x (n, d)``."""
    train, test = x[rows.train], x[rows.test]
    right = [regression(train, y).predict(test) == truth for y, truth in _labels(rows, seed)]
    return _measured(rows, right, group)


def _labels(rows: Balanced, seed: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Those of the training and of the test rows, then the same shuffled."""
    labels, generator = (rows.y[rows.train], rows.y[rows.test]), np.random.default_rng([seed, 3])
    yield labels
    for _ in range(SHUFFLES):
        yield generator.permutation(labels[0]), generator.permutation(labels[1])


def correlations(features: Any, y: NDArray[np.bool_]) -> Doubles:
    """Correlation of each feature with a class, ``(m,)``; 0 for a feature that does not vary.

    The difference between the means of the two classes, over the feature's deviation, times
    ``√(p (1 - p))`` with ``p`` the share of the class.

    Args:
        features: ``(n, m)``, dense or SciPy CSR.
        y: ``(n,)``: whether a row is of the class.
    """
    dense = isinstance(features, np.ndarray)
    x = features.astype(np.float64)
    square = (np.square(x) if dense else x.multiply(x)).mean(axis=0)
    mean = np.asarray(x.mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(np.asarray(square).ravel() - mean**2, 0))
    p = y.mean()
    covariance = np.asarray(x.T @ y.astype(np.float64)).ravel() / len(y) - p * mean
    varies = deviation > 1e-6 * np.abs(mean)  # what is smaller may be rounding
    found: Doubles = np.divide(
        covariance, deviation * np.sqrt(p * (1 - p)), out=np.zeros(len(mean)), where=varies
    )
    return found


def best_features(features: Any, y: NDArray[np.bool_]) -> Indices:
    """Features by falling absolute correlation with a class, equal ones by their numbers."""
    best: Indices = np.argsort(-np.abs(correlations(features, y)), kind="stable")
    return best


def regression(x: NDArray[Any], y: NDArray[np.bool_]) -> Any:
    """A logistic regression on standardised features ``(n, k)``, fitted."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)


def columns(features: Any, chosen: Indices) -> Doubles:
    """Some features, dense ``(n, k)``."""
    found = features[:, chosen]
    plain: Doubles = (found if isinstance(found, np.ndarray) else found.toarray()).astype(
        np.float64
    )
    return plain


def _measured(rows: Balanced, right: Sequence[NDArray[np.bool_]], group: Indices) -> Accuracy:
    """The accuracy of a probe, and of those with shuffled labels that come after it."""
    own, *shuffled = right
    low, high = interval_by_group(own, group[rows.test])
    return Accuracy(float(own.mean()), low, high, float(np.mean(shuffled)))


def interval_by_group(
    values: NDArray[Any], group: Indices, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a mean over rows, ``(n,)``, by bootstrap over their documents.

    Rows of one document are not independent, so documents are resampled, each with all its rows.
    """
    _, of_row = np.unique(group, return_inverse=True)
    sums, counts = np.bincount(of_row, values), np.bincount(of_row)
    times = np.random.default_rng(seed).multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), draws
    )
    low, high = np.quantile((times @ sums) / (times @ counts), [0.025, 0.975])
    return float(low), float(high)
