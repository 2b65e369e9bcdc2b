"""What the default codec costs in accuracy: its error over the variance of what it stores."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.harvests import demo_store

    store = demo_store(bench)
    fvu = [store.codec_fvu(name) for name in store.hook_names]

    def notes() -> list[str]:
        return [f"From {min(fvu):.1e} to {max(fvu):.1e} over {len(fvu)} layers."]

    yield Sides(lambda: sum(fvu) / len(fvu), lambda: 1.0, notes)


ROW = Row(
    name="codec_error",
    what="Squared error of the default codec, the store of bytes_per_value",
    against="The variance of the same activations",
    unit="of the variance",
    target=Target("at most", 1.5e-4),
    how="The error is summed while the store is written, over all rows and against the float32 "
    "values; the mean over layers of error ÷ variance (FVU). Counted, not timed; theirs is 1 by "
    "definition.",
    floor="A step of the code is a 255th of the range of 512 values in each dimension; a uniform "
    "error of half a step either way has a twelfth of its square as variance.",
    sides=sides,
    repetitions=1,
)
