"""rkcnn: latents start between a direction found by the RkCNN probe and a row of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.settings import option
from rkstore.training.inits.base import Start
from rkstore.training.inits.datapoint import Blended
from rkstore.training.inits.mining import Directed, Mined

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MinedRows(Mined, Blended):
    """Mined directions, each blended with a row of the data, half and half."""

    usual_share = 0.5

    def begin_at(self, directions: Tensor, start: Start, generator: torch.Generator) -> int:
        """Initialise the first ``r`` latents between these directions, ``(r, d_in)``, and rows."""
        start.weights.W_dec[: len(directions)] = start.mapped(directions)
        self.blend_rows(start, generator)
        return len(directions)


class RkCNN(Directed, MinedRows):
    """The best directions of the probe, each blended with a row of the data, in encoder *and*
    decoder; the other latents are blends of a random direction and a row.

    The published code put directions only in the decoder, unknown to the encoder, and kept every
    subset it drew (``rkcnn-decoder``). Here more subsets are drawn than kept, and rows are
    included because without them it explains less than random directions (docs/rkcnn.md).
    """

    name = "rkcnn"
    mining = (*Mined.mining, "rkcnn_oversample")
    rkcnn_oversample: float = option(
        4.0,
        "Subsets that --init rkcnn draws for each one kept; up to 1, all are kept.",
        least=1.0,
    )

    def fill(self, start: Start, generator: torch.Generator) -> int:
        mined = self.mined_latents(start)
        drawn = round(mined * self.rkcnn_oversample)
        directions = self.directions_of(start, drawn=drawn, wanted=mined)
        return self.begin_at(directions, start, generator)
