"""Five dictionaries from one harvest against five for which the model runs each time."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.row import Bench, Row, Sides, Target

DICTIONARIES, STEPS, BATCH_ROWS = 5, 100, 1024
LAYER, D_SAE = 6, 2048


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import numpy as np
    import torch
    from harness import harvests
    from harness.training import timed

    from rkstore.harvest.load import EMBEDDED_PATH
    from rkstore.harvest.run import run
    from rkstore.store.batches.assemble import Batch

    steps = bench.size(16, 2)
    harvest = harvests.demo(bench, str(LAYER), bench.size(16_384, 8192), "demo-layer")
    store = run(harvest)
    [name] = store.hook_names
    again = dataclasses.replace(harvest, out=bench.work / "demo-layer-again")
    harvesting = harvests.harvesting(again)
    bridge = harvests.plain_bridge(EMBEDDED_PATH, "float32")
    blocks: Any = torch.from_numpy(harvest.blocks.ids).long()

    def recomputed(*_: object, **__: object) -> Iterator[Batch]:
        """Batches of activations, each from the model when it is asked for."""
        for ids in itertools.cycle(blocks.split(BATCH_ROWS // blocks.shape[1])):
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(
                    ids, return_type=None, names_filter=[name], stop_at_layer=LAYER + 1
                )
            x = cache[name].reshape(ids.numel(), -1).numpy()
            yield Batch(np.arange(len(x)), {name: x})

    per_token, per_stored, per_fresh = [], [], []

    def from_store() -> float:
        per_token.append(1 / harvesting())
        per_stored.append(timed(store.root, D_SAE, steps).seconds / steps)
        return STEPS * (BATCH_ROWS * per_token[-1] + DICTIONARIES * per_stored[-1])

    def from_model() -> float:
        per_fresh.append(timed(store.root, D_SAE, steps, recomputed).seconds / steps)
        return STEPS * DICTIONARIES * per_fresh[-1]

    def notes() -> list[str]:
        token, slow, fast = map(statistics.median, (per_token, per_fresh, per_stored))
        saved = slow - fast
        pays = (
            f"the harvest has paid for itself after {BATCH_ROWS * token / saved:.1f} dictionaries"
            if saved > 0
            else "the harvest never pays for itself here"
        )
        return [
            f"Medians: {1e6 * token:.0f} µs to harvest a token, {1e3 * fast:.1f} ms for a step "
            f"from the store, {1e3 * slow:.1f} ms for a step with the model before it; {pays}.",
        ]

    yield Sides(from_store, from_model, notes)


ROW = Row(
    name="end_to_end",
    what=f"{DICTIONARIES} dictionaries of {STEPS} steps from a store, the harvest included",
    against="The same with the activations computed anew for every batch",
    unit="s",
    target=Target("at most", 1.0),
    how="The demo model, layer 6, TopK with 2,048 latents, batches of 1,024 rows, as many tokens "
    "harvested as one dictionary sees. Costs are measured a token and a step (16 steps a "
    "repetition, waiting for the batch included) and multiplied, because they do not change with "
    "the number of steps. Theirs stops the model behind the layer and computes no logits.",
    floor="A step of the training is on both sides. The demo model is so small that a batch of "
    "its activations costs little next to a step: the larger the model, the smaller the ratio.",
    sides=sides,
)
