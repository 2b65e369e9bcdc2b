"""random: independent Xavier encoder and decoder. The usual baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    import torch


class Random(Init):
    """Glorot & Bengio (2010) for both matrices, drawn independently.

    The decoder stays the base that all inits share: its rows have norm 1, which removes the scale
    that Xavier chooses.
    """

    name = "random"
    # As in the original code.
    centred = False
    any_sites = True

    def fill(self, start: Start, generator: torch.Generator) -> None:
        xavier(start, generator)


def xavier(start: Start, generator: torch.Generator) -> None:
    """Draw the encoder."""
    import torch

    W_enc = start.weights.W_enc
    # Drawn row by row, whatever the memory layout of the encoder.
    drawn = torch.empty(W_enc.shape)
    W_enc.copy_(torch.nn.init.xavier_uniform_(drawn, generator=generator))
