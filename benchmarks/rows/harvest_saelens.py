"""A harvest of twelve layers against SAELens, which caches one layer in a run."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.row import Bench, Row, Sides, Target

LAYERS = 12

# It stops behind the layer it is asked for: this one costs a little less than the mean of all.
LAYER = 5


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from datasets import Dataset
    from harness.harvests import bound, harvesting, prepared
    from harness.peer import peer, python_of

    python = python_of("saelens")
    harvest = prepared(bench)
    tokens = bench.work / "tokens"
    Dataset.from_dict({"input_ids": harvest.blocks.ids}).save_to_disk(tokens)
    rows = harvest.manifest.rows
    with ExitStack() as stack:
        one_layer = stack.enter_context(
            peer(bench, python, "saelens_harvest.py", tokens, bench.work / "saelens-run", LAYER)
        )
        rates = []

        def twelve_runs() -> float:
            rates.append(rows / (LAYERS * one_layer()))
            return rates[-1]

        yield Sides(
            harvesting(harvest), twelve_runs, lambda: bound(harvest, statistics.median(rates))
        )


ROW = Row(
    name="harvest_saelens",
    what="The same harvest, float32, all 12 layers",
    against="SAELens' CacheActivationsRunner, one run a layer, 12 runs",
    unit="tokens/s",
    target=Target("at least", 10.0),
    how="The harvest of harvest_fp32. SAELens caches one hook in a run: layer 5 is run once in "
    "each repetition, run() alone on the clock, and its time is multiplied by 12. It stops "
    "behind the sixth of twelve blocks, a little less than the mean of all layers, so the "
    "product is in its favour. Its model is a HookedTransformer of the same shape with random "
    "weights, its tokens are the same ones, tokenised before.",
    floor="Twelve runs compute 78 blocks where one computes 12, which alone is 6.5 times; the "
    "rest is what Arrow takes to write float32. Ours is bounded by its one forward pass and the "
    "encoding, which the note has alone.",
    sides=sides,
)
