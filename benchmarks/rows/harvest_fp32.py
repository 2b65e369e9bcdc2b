"""A harvest against the forward pass that leaves the same activations in memory, float32."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.harvests import against_run_with_cache

    with against_run_with_cache(bench, "float32") as both:
        yield both


ROW = Row(
    name="harvest_fp32",
    what="Harvest of all 12 mlp.hook_post of GPT-2's shape, encoded, checked and on disk",
    against="TransformerBridge.run_with_cache of the same sites, nothing stored",
    unit="tokens/s",
    target=Target("at least", 1.35),
    how="8,192 tokens in blocks of 128, 32 blocks at a time, float32 model with random weights. "
    "Ours is rkstore.harvest.run.run: forward pass, default codec, checksums, statistics, fsync; "
    "two shards of 4,096, so that one can be written while the next is computed. Theirs is "
    "run_with_cache with names_filter under inference_mode and the logits that it returns by "
    "default. Loading the model and tokenising is on neither side's clock.",
    floor="Both sides compute the same twelve blocks, which bounds the ratio: what ours can save "
    "is the unembedding and the hooks, what it must add is the encoding.",
    sides=sides,
)
