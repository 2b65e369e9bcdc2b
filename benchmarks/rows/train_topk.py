"""A training step of TopK against the five dense matrix products of its size."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.steps import against_products

    with against_products(bench, "topk", k=bench.size(32, 8)) as both:
        yield both


ROW = Row(
    name="train_topk",
    what="A training step of TopK, 768 → 6,144, k = 32, 2,048 rows, float32",
    against="The five dense matrix products of this size",
    unit="s",
    target=Target("at most", 1.6),
    how="As train_relu. 65,536 of 12.6 million latents are on.",
    floor="One of the five products has to be dense, the one that finds the code. The other four "
    "are sums over the latents that are on: 0.1 GFLOP instead of 19.3, bound by reading 200 MB "
    "of rows each. With Adam and the search for the largest that is about 0.3.",
    sides=sides,
    repetitions=7,
)
