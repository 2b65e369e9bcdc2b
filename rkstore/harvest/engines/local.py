"""Shards one after another, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.harvest.engines.base import Engine, Shards
from rkstore.harvest.filling import Left, fill
from rkstore.store.writing.whole import Advance, fill_missing

if TYPE_CHECKING:
    from rkstore.harvest.run import Harvest
    from rkstore.store.writing.base import Writer
    from rkstore.store.writing.encoder import ShardEncoder


class Local(Engine):
    """This process."""

    name = "local"

    def shards(self, harvest: Harvest, writer: Writer, advance: Advance) -> Shards:
        """As of every engine."""
        left: Left = {}

        def rows(encoder: ShardEncoder) -> None:
            batches = harvest.batches(encoder.shard)
            fill(encoder, batches, harvest.model, harvest.manifest, left, advance)

        # On a CPU the model and the threads that write would compete for the same cores.
        ahead = bool(writer.missing) and harvest.model.device != "cpu"
        return fill_missing(writer, rows, ahead=ahead)
