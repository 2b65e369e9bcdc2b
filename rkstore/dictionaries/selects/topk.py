"""TopK: the k largest latents of each token (Gao et al. 2024, arXiv 2406.04093)."""

from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.selects.base import Select
from rkstore.dictionaries.sparse import SPARSE, SparseCode
from rkstore.errors import BadInput


class TopK(Select):
    """The ``k`` largest pre-activations of a token stay, if they are above zero."""

    name = "topk"
    architecture: str | None = "topk"
    options = ("k",)

    def __init__(self, k: int = 32) -> None:
        super().__init__()
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, indices, torch.relu(values))

    def sparse(self, pre: Tensor) -> SparseCode | None:
        batch, d_sae = pre.shape
        if self.k > SPARSE * d_sae:
            return None
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        token, place = (values > 0).nonzero(as_tuple=True)
        return SparseCode(
            token, latents[token, place], values[token, place].float(), (batch, d_sae)
        )

    def fit(self, d_sae: int) -> None:
        if not 1 <= self.k <= d_sae:
            raise BadInput(f"--k is {self.k}: it must be from 1 to the {d_sae} latents")

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}
