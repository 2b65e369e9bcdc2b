"""Harvests against forward passes that store nothing, and against SAELens."""

import statistics
from collections.abc import Iterator

from harness.harvests import against_run_with_cache, bound, harvesting, prepared
from harness.peer import peer, python_of
from harness.row import Bench, Sides, Target, compared


@compared(
    what="Harvest of all 12 mlp.hook_post of GPT-2's shape, encoded, checked and on disk",
    against="TransformerBridge.run_with_cache of the same sites, nothing stored",
    unit="tokens/s",
    target=Target("at least", 1.35),
    how="8,192 tokens in blocks of 128, 32 blocks at a time, float32 model with random weights. "
    "Ours is rkstore.harvest.run.run: forward pass, default codec, checksums, statistics, fsync; "
    "two shards of 4,096, so that one can be written while the next is computed. Theirs is "
    "run_with_cache with names_filter under inference_mode and the logits that it returns by "
    "default. Loading the model and tokenising are not timed.",
    floor="Both sides compute the same twelve blocks, which bounds the ratio: ours can save the "
    "unembedding and the hooks, and must add the encoding.",
)
def harvest_fp32(bench: Bench) -> Iterator[Sides]:
    return against_run_with_cache(bench, "float32")


@compared(
    what="The same harvest with a bfloat16 model",
    against="TransformerBridge.run_with_cache in bfloat16, nothing stored",
    unit="tokens/s",
    target=Target("at least", 1.3),
    how="As harvest_fp32, with both models in bfloat16. Ours stores what the model computed with "
    "the same default codec.",
    floor="With instructions for bfloat16 the blocks take less time and the encoding as much as "
    "before, so it is a larger share of the whole than in float32: one after the other on the same "
    "cores, forward pass and encoding alone, as the note gives them, already miss the target. "
    "Without such instructions the model dominates and the ratio is that of harvest_fp32.",
)
def harvest_bf16(bench: Bench) -> Iterator[Sides]:
    return against_run_with_cache(bench, "bfloat16")


LAYERS = 12

# It stops after the layer it is asked for: this one costs a little less than the mean of all.
LAYER = 5


@compared(
    what="The same harvest, float32, all 12 layers",
    against="SAELens' CacheActivationsRunner, one run a layer, 12 runs",
    unit="tokens/s",
    target=Target("at least", 10.0),
    how="The harvest of harvest_fp32. SAELens caches one hook in a run: layer 5 is run once in "
    "each repetition, only run() is timed, and its time is multiplied by 12. It stops after the "
    "sixth of twelve blocks, a little less than the mean of all layers, so the "
    "product is in its favour. Its model is a HookedTransformer of the same shape with random "
    "weights, its tokens are the same ones, tokenised before.",
    floor="Twelve runs compute 78 blocks where one computes 12, which alone is 6.5 times; the rest "
    "is the time Arrow takes to write float32. Ours is bounded by its one forward pass and the "
    "encoding, which the note gives separately.",
)
def harvest_saelens(bench: Bench) -> Iterator[Sides]:
    from datasets import Dataset

    python = python_of("saelens")
    harvest = prepared(bench)
    tokens = bench.work / "tokens"
    Dataset.from_dict({"input_ids": harvest.blocks.ids}).save_to_disk(tokens)
    rows = harvest.manifest.rows
    given = (tokens, bench.work / "saelens-run", LAYER)
    with peer(bench, python, "saelens_harvest.py", *given) as one_layer:
        rates: list[float] = []

        def twelve_runs() -> float:
            rates.append(rows / (LAYERS * one_layer()))
            return rates[-1]

        def notes() -> list[str]:
            return bound(harvest, statistics.median(rates))

        yield Sides(harvesting(harvest), twelve_runs, notes)
