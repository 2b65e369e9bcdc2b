"""TopK: the k largest latents of each token (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.dictionaries.selects.base import Select
from rkstore.errors import BadInput
from rkstore.settings import option

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class TopK(Select):
    """The ``k`` largest pre-activations of a token stay, if they are above zero."""

    name = "topk"
    architecture: ClassVar[str | None] = "topk"
    k: int = option(
        32, "Active latents of a topk or abstopk code; of a batchtopk code on average.", least=1
    )

    def code(self, pre: Tensor, kept: Selection) -> Tensor:  # noqa: ARG002
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        return pre.new_zeros(pre.shape).scatter(-1, indices, values.relu())

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode | None:  # noqa: ARG002
        from rkstore.dictionaries.sparse import SPARSE, SparseCode

        batch, latents = pre.shape
        if self.k > SPARSE * latents:
            return None
        values, chosen = pre.topk(self.k, dim=-1, sorted=False)
        token, place = (values > 0).nonzero(as_tuple=True)
        return SparseCode(
            token, chosen[token, place], values[token, place].float(), (batch, latents)
        )

    def check(self, latents: int) -> None:
        if not 1 <= self.k <= latents:
            raise BadInput(f"--k is {self.k}: it must be from 1 to the {latents} latents")

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}
