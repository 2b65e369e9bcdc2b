"""A training step of BatchTopK against the five dense matrix products of its size."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.steps import against_products

    with against_products(bench, "batchtopk", k=bench.size(32, 8)) as both:
        yield both


ROW = Row(
    name="train_batchtopk",
    what="A training step of BatchTopK, 768 → 6,144, k = 32, 2,048 rows, float32",
    against="The five dense matrix products of this size",
    unit="s",
    target=Target("at most", 1.6),
    how="As train_topk; the 65,536 largest are sought in the whole batch.",
    floor="As train_topk.",
    sides=sides,
    repetitions=7,
)
