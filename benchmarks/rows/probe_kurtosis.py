"""RkCNN with kurtosis from the default store against one pass over the rows in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target

# Of the peer's pass: enough for the product to outweigh adding its result to the sum.
BLOCK_ROWS = 4096


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import numpy as np
    from harness import synthetic
    from harness.steps import seconds

    from rkstore.rkcnn import RkCNNProbe, StoreSite
    from rkstore.store.store import Store

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


ROW = Row(
    name="probe_kurtosis",
    what="RkCNN, kurtosis, 200 of 600 subsets of 55 of 3,072 dimensions, from the default store",
    against="One pass over the same rows in memory: four moments and the Gram matrix, float32",
    unit="s",
    target=Target("at most", 2),
    how="65,536 rows. Ours reads the store, checks every value, draws, scores, and finds the "
    "directions. The peer has the rows decoded and a mean of some of them beforehand, and NumPy, "
    "which multiplies a matrix by its own transpose in half the operations; torch does all "
    "of them and takes longer.",
    floor="The product, n · d² operations with its symmetry, 0.62 TFLOP, is more than two thirds "
    "of either side, so 1 cannot be beaten by much.",
    sides=sides,
)
