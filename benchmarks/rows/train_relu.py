"""A training step of a dense code against the five matrix products that it cannot do without."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.steps import against_products

    # Without a penalty the code stays as dense as it begins.
    with against_products(bench, "relu", l1=0.0) as both:
        yield both


ROW = Row(
    name="train_relu",
    what="A training step of a ReLU dictionary, 768 → 6,144, 2,048 rows, float32",
    against="Its five matrix products alone: encode, decode, three gradients",
    unit="s",
    target=Target("at most", 1.4),
    how="All of the step but reading its batch: scaling, gradients, Adam, unit decoder rows, "
    "statistics. No penalty, so the code stays dense and no product can be left out. The "
    "products write to memory that is there already, as the step's do.",
    floor="Each product is 19.3 GFLOP, five are 96.6. The rest moves bytes: eight passes over the "
    "50 MB of a code or its gradient, and about twenty over the 19 MB of one weight matrix, "
    "0.8 GB: about 0.05 s at 16 GB/s, next to 1 s of products.",
    sides=sides,
    repetitions=7,
)
