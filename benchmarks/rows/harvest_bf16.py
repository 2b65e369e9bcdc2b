"""A harvest against the forward pass that leaves the same activations in memory, bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    from harness.harvests import against_run_with_cache

    with against_run_with_cache(bench, "bfloat16") as both:
        yield both


ROW = Row(
    name="harvest_bf16",
    what="The same harvest with a bfloat16 model",
    against="TransformerBridge.run_with_cache in bfloat16, nothing stored",
    unit="tokens/s",
    target=Target("at least", 1.3),
    how="As harvest_fp32, with both models in bfloat16. Ours stores what the model computed with "
    "the same default codec.",
    floor="With instructions for bfloat16 the blocks take less time and the encoding as much as "
    "before, so it is a larger share of the whole than in float32: one after the other on the same "
    "cores, forward pass and encoding alone, as the note has them, are beyond the target. Without "
    "such instructions the model is the slower one and the ratio that of harvest_fp32.",
    sides=sides,
)
