"""AbsTopK: the k largest of each token by magnitude, with their signs (arXiv 2510.00404)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.topk import TopK

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class AbsTopK(TopK):
    """The ``k`` pre-activations of a token that are farthest from zero stay as they are.

    So one latent stands for two opposite directions; it is on where its code is not zero.
    """

    name = "abstopk"
    architecture = "abstopk"
    signed = True

    def code(self, pre: Tensor, kept: Selection) -> Tensor:  # noqa: ARG002
        indices = pre.abs().topk(self.k, dim=-1, sorted=False).indices
        return pre.new_zeros(pre.shape).scatter(-1, indices, pre.gather(-1, indices))

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode:  # noqa: ARG002
        """Always a list: what makes a dense code fast holds only above zero."""
        from rkstore.dictionaries.sparse import SparseCode

        batch, latents = pre.shape
        chosen = pre.abs().topk(self.k, dim=-1, sorted=False).indices
        values = pre.gather(-1, chosen)
        token, place = (values != 0).nonzero(as_tuple=True)
        return SparseCode(
            token, chosen[token, place], values[token, place].float(), (batch, latents)
        )
