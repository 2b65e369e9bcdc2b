"""tied: random unit decoder rows, the encoder their transpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    import torch


class Tied(Init):
    """A latent fires where its own direction is present: Gao et al. (2024, arXiv 2406.04093)
    found this to be what most prevents dead latents."""

    name = "tied"

    def fill(self, start: Start, generator: torch.Generator) -> None:  # noqa: ARG002
        start.tie()
