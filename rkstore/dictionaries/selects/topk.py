"""TopK: the k largest latents of each token (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from rkstore.dictionaries.selects.base import Select
from rkstore.errors import BadInput
from rkstore.settings import option

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class TopK(Select):
    """The ``k`` largest pre-activations of a token stay, if they are above zero.

    k-annealing, as in dictionary_learning: k falls from ``k_start`` to ``k`` linearly over the
    first ``k_anneal_steps``, so that more latents get a gradient while directions form.
    """

    name = "topk"
    architecture: ClassVar[str | None] = "topk"
    of_training: ClassVar[frozenset[str]] = frozenset(("k_start", "k_anneal_steps"))
    k: int = option(
        32, "Active latents of a topk or abstopk code; of a batchtopk code on average.", least=1
    )
    k_start: int | None = option(
        None,
        "k at the first step, above --k, from which it falls to --k (k-annealing). By default k "
        "does not change, as in Gao et al.",
        least=1,
        newer=True,
    )
    k_anneal_steps: int | None = option(
        None,
        "Steps, from the first, over which k falls from --k-start to --k; no default: published "
        "ones are from a few percent to most of a run.",
        least=1,
        newer=True,
    )

    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        values, indices = self._largest(pre, kept)
        return pre.new_zeros(pre.shape).scatter(-1, indices, values.relu())

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode | None:
        from rkstore.dictionaries.sparse import SparseCode, sparse_below

        batch, latents = pre.shape
        if self.k > sparse_below(pre) * latents:
            return None
        values, chosen = self._largest(pre, kept)
        token, place = (values > 0).nonzero(as_tuple=True)
        return SparseCode(
            token, chosen[token, place], values[token, place].float(), (batch, latents)
        )

    def _largest(self, pre: Tensor, kept: Selection) -> tuple[Tensor, Tensor]:
        """Values and latents of the k largest of each token; zero where that is another process's.

        Its latents may be spread over several.
        """
        values, indices = pre.topk(min(self.k, pre.shape[-1]), dim=-1, sorted=False)
        if kept.across.size == 1:
            return values, indices
        return values * kept.across.among(values, self.k), indices

    def check(self, latents: int) -> None:
        if not 1 <= self.k <= latents:
            raise BadInput(f"--k is {self.k}: it must be from 1 to the {latents} latents")
        if self.k_start is not None and not self.k <= self.k_start <= latents:
            raise BadInput(
                f"--k-start is {self.k_start}: it must be from --k, {self.k}, to the {latents} "
                "latents"
            )

    def at(self, step: int, steps: int) -> Self:  # noqa: ARG002
        if self.k_start is None or self.k_anneal_steps is None:
            return self
        done = min(1.0, step / self.k_anneal_steps)
        return self.model_copy(update={"k": round((1 - done) * self.k_start + done * self.k)})

    def check_run(self, steps: int) -> None:
        if (self.k_start is None) != (self.k_anneal_steps is None):
            raise BadInput("k falls from --k-start over --k-anneal-steps: give both or neither")
        if self.k_anneal_steps is not None and self.k_anneal_steps >= steps:
            raise BadInput(
                f"--k-anneal-steps is {self.k_anneal_steps}: annealing must be shorter than the "
                f"run of {steps} steps, give fewer or more --steps"
            )

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}
