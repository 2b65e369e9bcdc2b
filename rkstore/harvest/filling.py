"""The rows of a shard: batches of blocks × model → encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkstore.harvest.model import Model
    from rkstore.harvest.tokens import BlockBatch
    from rkstore.store.manifest import Manifest
    from rkstore.store.writing.encoder import Floats, ShardEncoder

# Activations of a batch by site, by the number of its first block.
Left = dict[int, Mapping[str, "Floats"]]


def fill(
    shard: ShardEncoder,
    batches: Iterable[BlockBatch],
    model: Model,
    manifest: Manifest,
    left: Left,
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Run the model over the batches of one shard; each is encoded immediately.

    Args:
        left: what was computed of a batch for the previous shard, and the same for the next one.
            A batch that is not in it is computed again, to the same numbers.
        advance: called with the number of rows of each batch.
    """
    for batch in batches:
        x = left.pop(batch.first, None)
        if x is None:
            x = model.to_encode(batch.ids, list(manifest.sites))
        if batch.cut:
            left[batch.first] = x
        if batch.rows is not None:
            x = {name: values[batch.rows] for name, values in x.items()}
        shard.add(x, batch.columns)
        # An accelerator computes the next batch meanwhile. On a CPU, the model and the threads
        # that encode would compete for the same cores.
        if model.device == "cpu":
            shard.settle()
        advance(len(batch.columns["token_id"]))
