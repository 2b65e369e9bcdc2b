"""random: Xavier encoder and decoder, drawn apart. The usual baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    import torch


class Random(Init):
    """Glorot & Bengio (2010) for both matrices: encoder and decoder know nothing of each other.

    The decoder stays the base that all inits share: its rows are given norm 1, which leaves
    nothing of the scale that Xavier chooses.
    """

    name = "random"
    # As in the code that it comes from.
    centred = False
    any_sites = True

    def fill(self, start: Start, generator: torch.Generator) -> None:
        xavier(start, generator)


def xavier(start: Start, generator: torch.Generator) -> None:
    """Draw the encoder."""
    import torch

    W_enc = start.weights.W_enc
    # Drawn row by row, however the encoder lies in memory.
    drawn = torch.empty(W_enc.shape)
    W_enc.copy_(torch.nn.init.xavier_uniform_(drawn, generator=generator))
