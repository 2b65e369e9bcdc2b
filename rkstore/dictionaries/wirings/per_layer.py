"""per-layer: the transcoders of several layers in one run, none of which sees another's layer."""

from collections.abc import Sequence

from rkstore.dictionaries.wirings.base import Bank, Wiring
from rkstore.dictionaries.wirings.transcoder import Transcoder
from rkstore.store.sites import Site


class PerLayer(Transcoder):
    """A :class:`Transcoder` per layer, each with its own select: ``--k`` counts in each layer.

    Circuit tracing takes such a set as it takes a cross-layer transcoder.
    """

    name = "per-layer"
    of_several = True

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        """``latents`` are those of each layer."""
        banks = (Bank(latents, (x,), (y,)) for x, y in zip(reads, writes, strict=True))
        return Wiring(tuple(banks), together=False, skip=self.skip)
