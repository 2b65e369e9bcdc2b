"""JumpReLU: a threshold for each latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.base import Select

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection


class JumpReLU(Select):
    """A pre-activation above its latent's ``threshold (latents,)`` stays.

    It can be loaded, and BatchTopK is saved as it; it cannot be trained.
    """

    name = "jumprelu"
    architecture = "jumprelu"
    trained = False

    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        return pre.relu() * (pre > kept.get_buffer("threshold"))

    def state(self, latents: int) -> dict[str, Tensor]:
        import torch

        return {"threshold": torch.zeros(latents)}

    def rescale(self, kept: Selection, scale: float) -> None:
        kept.get_buffer("threshold").div_(scale)
