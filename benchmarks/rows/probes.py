"""RkCNN from a store, and its scores, against the same arithmetic written by hand."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from harness import synthetic
from harness.row import Bench, Sides, Target, compared
from harness.training import seconds
from numpy.typing import NDArray

from rkstore.rkcnn import RkCNNProbe, StoreSite, random_subsets, score_named
from rkstore.rkcnn.scores.base import Comparison, RowScore
from rkstore.store.store import Store

# Of the peer's pass: enough for the product to outweigh adding its result to the sum.
BLOCK_ROWS = 4096


@compared(
    what="RkCNN, kurtosis, 200 of 600 subsets of 55 of 3,072 dimensions, from the default store",
    against="One pass over the same rows in memory: four moments and the Gram matrix, float32",
    unit="s",
    target=Target("at most", 2),
    how="65,536 rows. Ours reads the store, checks every value, draws, scores, and finds the "
    "directions. The peer has the rows decoded and a mean of some of them beforehand. It uses "
    "NumPy, which multiplies a matrix by its own transpose in half the operations; torch does all "
    "of them and takes longer.",
    floor="The product, n · d² operations with its symmetry, 0.62 TFLOP, is more than two thirds "
    "of either side, so 1 cannot be beaten by much.",
)
def probe_kurtosis(bench: Bench) -> Iterator[Sides]:
    store = Store(synthetic.store(bench))
    x = store.read(synthetic.SITE)
    mean = x[:BLOCK_ROWS].mean(axis=0)
    probe = RkCNNProbe(x.shape[1], m=55, h=600, r=200)

    def ours() -> None:
        probe.probe(StoreSite(store, synthetic.SITE))

    def one_pass() -> None:
        powers, gram = np.zeros((4, x.shape[1])), np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), BLOCK_ROWS):
            deviation = x[start : start + BLOCK_ROWS] - mean
            square = deviation * deviation
            for power, of_rows in zip(
                powers, (deviation, square, square * deviation, square * square), strict=True
            ):
                power += of_rows.sum(axis=0)
            gram += deviation.T @ deviation

    yield Sides(seconds(ours), seconds(one_pass))


K, QUERIES, M, CLASSES = 5, 1000, 55, 50

# In a repetition of probe_knn; the sides that ask all rows take fewer.
SUBSETS, FEW_SUBSETS = 20, 2

# In a repetition of probe_separation.
MANY_SUBSETS, PEER_SUBSETS = 600, 10


def centred_rows(bench: Bench) -> NDArray[np.float32]:
    """Rows in memory, less their mean."""
    shards = [synthetic.shard(number, synthetic.WIDTH) for number in range(3)]
    x = np.concatenate(shards)[: bench.size(20_000, 2_000)]
    x -= x.mean(axis=0)
    return x


@compared(
    what="RkCNN's knn score, 20,000 rows, queried with 1,000 of them (an estimate)",
    against="scikit-learn's brute force, subset by subset, queried with all 20,000",
    unit="subsets/s",
    target=Target("at least", 10),
    how="Subsets of 55 of 3,072 dimensions; instead of 600, ours takes 20 a repetition and the "
    "peer 2, at the same cost each. Rows in memory, five neighbours, labels. The sides do not "
    "compute the same: ours is a mean over a twentieth of the rows, each with its exact neighbours "
    "among all. The notes give the ratio for the same work, and the error.",
    floor="Queried with all rows, 2 · n² · m is 44 GFLOP a subset. A float32 product of this shape "
    "takes more than a third of the peer's time, so 10 × is out of reach without fewer queries.",
)
def probe_knn(bench: Bench) -> Iterator[Sides]:
    from sklearn.neighbors import NearestNeighbors

    x = centred_rows(bench)
    n = len(x)
    norms = np.linalg.norm(x, axis=1)
    labels = np.searchsorted(np.quantile(norms, [0.25, 0.5, 0.75]), norms)
    generator = np.random.default_rng(0)
    subsets = random_subsets(x.shape[1], M, SUBSETS, generator)
    some = torch.from_numpy(np.sort(generator.choice(n, min(QUERIES, n // 10), replace=False)))
    knn = score_named("knn", k_neighbors=K)
    assert isinstance(knn, RowScore)
    scores: dict[str, np.ndarray] = {}
    exact_rates, peer_rates = [], []

    def asked(name: str, count: int, asking: torch.Tensor | None) -> float:
        known = Comparison(n, torch.from_numpy(labels), asking)
        began = time.perf_counter()
        scores[name] = knn.of_subsets(torch.from_numpy(x), torch.from_numpy(subsets[:count]), known)
        return count / (time.perf_counter() - began)

    def theirs() -> float:
        began = time.perf_counter()
        found = []
        for subset in subsets[:FEW_SUBSETS]:
            rows = x[:, subset]
            index = NearestNeighbors(algorithm="brute", n_neighbors=K + 1).fit(rows)
            neighbors = index.kneighbors(rows, return_distance=False)[:, 1:]
            found.append((labels[neighbors] == labels[:, None]).mean())
        scores["peer"] = np.array(found)
        peer_rates.append(FEW_SUBSETS / (time.perf_counter() - began))
        exact_rates.append(asked("exact", FEW_SUBSETS, None))
        return peer_rates[-1]

    def notes() -> list[str]:
        exact = np.median(np.divide(exact_rates, peer_rates))
        apart = np.abs(scores["exact"] - scores["peer"]).max()
        share = scores["exact"]
        error = np.sqrt(share * (1 - share) * (1 / len(some) - 1 / n)).max()
        off = np.abs(scores["some"][:FEW_SUBSETS] - scores["exact"]).max()
        return [
            f"queried with all {n:,} rows, as the peer is, ours does {exact:.2f} × its subsets a "
            f"second, and their scores differ by at most {apart:.1e}",
            f"queried with {len(some):,}, scores are off by at most {off:.4f}; the standard error "
            f"is at most {error:.4f}",
        ]

    yield Sides(lambda: asked("some", SUBSETS, some), theirs, notes)


@compared(
    what="RkCNN's separation score of 600 subsets, 20,000 rows, 50 classes",
    against="The same formula in NumPy, subset by subset",
    unit="subsets/s",
    target=Target("at least", 10),
    how="Subsets of 55 of 3,072 dimensions, rows in memory. Ours scores 600 a repetition, the peer "
    "10 of them, at the same cost each.",
    floor="n · h · m additions are 0.66 · 10⁹, once n · d squares are known; the peer computes "
    "as many squares, copies what it squares, and launches 150 operations a subset.",
)
def probe_separation(bench: Bench) -> Iterator[Sides]:
    x = centred_rows(bench)
    n = len(x)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, n)
    subsets = random_subsets(x.shape[1], M, MANY_SUBSETS, generator)
    separation = score_named("separation")
    assert isinstance(separation, RowScore)
    known = Comparison(n, torch.from_numpy(labels))
    scores: dict[str, np.ndarray] = {}

    def ours() -> float:
        began = time.perf_counter()
        scores["ours"] = separation.of_subsets(
            torch.from_numpy(x), torch.from_numpy(subsets), known
        )
        return MANY_SUBSETS / (time.perf_counter() - began)

    def of_subset(rows: np.ndarray) -> float:
        centre, between, within = rows.mean(axis=0), 0.0, 0.0
        for c in range(CLASSES):
            of_class = rows[labels == c]
            own = of_class.mean(axis=0)
            between += float(np.linalg.norm(own - centre))
            within += float(np.linalg.norm(of_class - own, axis=1).sum()) / len(of_class) ** 0.5
        return between / within

    def theirs() -> float:
        began = time.perf_counter()
        found = [of_subset(x[:, subset]) for subset in subsets[:PEER_SUBSETS]]
        scores["peer"] = np.array(found)
        return PEER_SUBSETS / (time.perf_counter() - began)

    def notes() -> list[str]:
        apart = np.abs(scores["ours"][:PEER_SUBSETS] / scores["peer"] - 1).max()
        return [f"scores of both sides agree to {apart:.1e}"]

    yield Sides(ours, theirs, notes)
