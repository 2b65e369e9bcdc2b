"""Shuffled batches of a compressed store against SAELens' cache, read in order."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness import synthetic
    from harness.batches import shuffled
    from harness.peer import peer, python_of

    python = python_of("saelens")
    root, cache = synthetic.store(bench), synthetic.saelens_cache(bench)
    shape = (synthetic.SITE, synthetic.CONTEXT, synthetic.WIDTH)
    sizes = (synthetic.rows_of(bench), synthetic.BATCH_ROWS)

    def notes() -> list[str]:
        ours, theirs = (synthetic.bytes_under(path) for path in (root, cache))
        return [
            f"A pass reads {ours / 1e6:,.0f} MB of ours and {theirs / 1e6:,.0f} MB of theirs, "
            f"{theirs / ours:.2f} times as much."
        ]

    with peer(bench, python, "saelens_batches.py", cache, *shape, *sizes) as theirs:
        yield Sides(shuffled(root), theirs, notes)


ROW = Row(
    name="batches_saelens",
    what="Shuffled float32 batches of 4,096 × 3,072 from the default store, page cache warm",
    against="SAELens' ActivationsStore on its Arrow cache, in order, not shuffled",
    unit="rows/s",
    target=Target("at least", 1.0),
    how="65,536 rows of random numbers through a GELU. Ours reads every row twice, in another "
    "order each time, checked and decoded; the store stays open over the repetitions. Theirs is "
    "get_raw_llm_batch with as many rows a batch, once through the cache that "
    "rkstore export --to saelens writes.",
    floor="Theirs copies uncompressed float32 out of the page cache; ours checks, decompresses, "
    "decodes and shuffles. What bounds ours is decoding on two cores and one copy to put the "
    "rows in their order.",
    sides=sides,
)
