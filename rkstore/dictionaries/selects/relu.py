"""ReLU with an L1 penalty: the classic sparse autoencoder (Bricken et al. 2023)."""

import torch
from torch import Tensor

from rkstore.dictionaries.selects.base import Select
from rkstore.dictionaries.sparse import SAMPLE_EVERY, SPARSE, SparseCode


class ReLU(Select):
    """Everything above zero stays; how much that is, the penalty ``l1 · Σ f`` decides.

    The rows of ``W_dec`` have norm 1, so the penalty cannot be escaped by shrinking
    the code and stretching the decoder.
    """

    name = "relu"
    architecture = "standard"
    options = ("l1",)

    def __init__(self, l1: float = 0.0) -> None:
        super().__init__()
        self.l1 = l1

    def forward(self, pre: Tensor) -> Tensor:
        return torch.relu(pre)

    def forward_(self, pre: Tensor) -> Tensor:
        return pre.relu_()

    def sparse(self, pre: Tensor) -> SparseCode | None:
        """A list once the penalty has made the code sparse: at first half the latents are on.

        A sample of the rows decides: to count all would take longer than it saves.
        """
        sample = pre[::SAMPLE_EVERY]
        if (sample > 0).count_nonzero() > SPARSE * sample.numel():
            return None
        tokens, latents = (pre > 0).nonzero(as_tuple=True)
        values = pre[tokens, latents].float()
        return SparseCode(tokens, latents, values, (pre.shape[0], pre.shape[1]))
