"""JumpReLU: a threshold for each latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

import torch
from torch import Tensor

from rkstore.dictionaries.selects.base import Select


class JumpReLU(Select):
    """A pre-activation above its latent's ``threshold (d_sae,)`` stays.

    Here it is loaded, or what BatchTopK is saved as; it has no training of its own.
    """

    name = "jumprelu"
    architecture = "jumprelu"
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(0))

    def forward(self, pre: Tensor) -> Tensor:
        return torch.relu(pre) * (pre > self.threshold)

    def fit(self, d_sae: int) -> None:
        if self.threshold.shape != (d_sae,):
            self.threshold = self.threshold.new_zeros(d_sae)

    def rescale(self, scale: float) -> None:
        self.threshold.div_(scale)
