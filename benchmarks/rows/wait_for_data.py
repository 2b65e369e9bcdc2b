"""What share of its time a training run waits for the next batch."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target

D_IN, D_SAE = 768, 6144


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness import synthetic
    from harness.training import Timed, timed

    steps = bench.size(32, 3)
    store = synthetic.store(bench, width=D_IN)
    runs: list[Timed] = []

    def waited() -> float:
        runs.append(timed(store, D_SAE, steps))
        return runs[-1].waited

    yield Sides(waited, lambda: runs[-1].seconds)


ROW = Row(
    name="wait_for_data",
    what="Time that a training step (TopK, 768 → 6,144) spends waiting for its batch",
    against="The whole time of the same steps",
    unit="s",
    target=Target("at most", 0.02),
    how="32 steps of 1,024 rows a repetition, from a store of that width with the default codec, "
    "page cache warm, in rkstore.training.train.train as it is. Ours is the time in "
    "next(batches), theirs the time of the same steps in all. The first batch, which a run "
    "waits for once, is not counted.",
    floor="Decoding runs in threads behind the step and takes cores from it; what is left is "
    "cutting a batch from its window, and waiting when a window is used up before the next one "
    "is ready.",
    sides=sides,
)
