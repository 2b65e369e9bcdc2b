"""ReLU with an L1 penalty: the classic sparse autoencoder (Bricken et al. 2023)."""

import torch
from torch import Tensor

from rkstore.dictionaries.selects.base import Select


class ReLU(Select):
    """Everything above zero stays; how much that is, the penalty ``l1 · Σ f`` decides.

    The rows of ``W_dec`` have norm 1, so the penalty cannot be escaped by shrinking
    the code and stretching the decoder.
    """

    name = "relu"
    architecture = "standard"
    options = ("l1",)

    def __init__(self, l1: float = 0.0) -> None:
        self.l1 = l1

    def __call__(self, pre: Tensor) -> Tensor:
        return torch.relu(pre)

    def penalty(self, f: Tensor) -> Tensor:
        return self.l1 * f.sum(dim=-1).mean()
