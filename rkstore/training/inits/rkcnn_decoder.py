"""rkcnn-decoder: RkCNN's initialisation as published, in the decoder only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.settings import option
from rkstore.training.inits.base import Start
from rkstore.training.inits.mining import Directed, Mined
from rkstore.training.inits.random import xavier

if TYPE_CHECKING:
    import torch


class RkCNNDecoder(Directed):
    """What the RkCNN-SAE code does: ``min(fraction · d_sae, h)`` rows of ``random``'s decoder
    become mined directions, and the encoder stays as it is.

    If the fraction of the latents exceeds the ``h`` subsets drawn, as in all published runs, every
    subset is kept and the score decides nothing. One thing differs: there the sign of a direction
    came from the eigenvector routine.
    """

    name = "rkcnn-decoder"
    centred = False
    mining = (*Mined.mining, "rkcnn_h")
    rkcnn_h: int = option(
        600, "Subsets that --init rkcnn-decoder draws; it mines no more latents.", least=1
    )

    def fill(self, start: Start, generator: torch.Generator) -> int:
        xavier(start, generator)
        wanted = self.mined_latents(start)
        directions = self.directions_of(start, drawn=self.rkcnn_h, wanted=wanted)
        start.weights.W_dec[: len(directions)] = start.mapped(directions)
        return len(directions)
