"""ReLU with an L1 penalty: the classic sparse autoencoder (Bricken et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.penalty import Penalised

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.losses import Coded
    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class ReLU(Penalised):
    """Everything above zero stays; the penalty ``l1 · Σ f`` controls how much that is.

    It can be annealed to one of a smaller power (``penalty.py``).

    The rows of ``W_dec`` have norm 1 (Bricken et al.), so shrinking the code and scaling up the
    decoder cannot evade the penalty. With ``--code-norm sae --no-unit-decoder`` it is instead
    ``l1 · Σ f ‖W_dec‖``, whose gradient reaches the decoder (Anthropic, "Circuits Updates - April
    2024"); with another norm the penalty of a crosscoder.

    Here the error is a sum over dimensions and the penalty one over latents, both means over
    tokens. Where both are means also over dimensions and latents, as in a loss ``mse + l1' ·
    mean|f|``, that weight is ``l1 = l1' · s · d_in / d_sae``, with ``s`` the factor of the inputs
    (1 with ``--norm none``). Many a published ``l1'`` of 1e-3 is thus a penalty of next to nothing.
    """

    name = "relu"
    architecture = "standard"
    by_latent = True

    def code(self, pre: Tensor, kept: Selection) -> Tensor:  # noqa: ARG002
        return pre.relu()

    def code_(self, pre: Tensor, kept: Selection) -> Tensor:  # noqa: ARG002
        return pre.relu_()

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode | None:  # noqa: ARG002
        """A list once the penalty has made the code sparse: at first half the latents are on.

        A sample of the rows decides: counting all would take longer than it saves.
        """
        from rkstore.dictionaries.sparse import SAMPLE_EVERY, SparseCode, sparse_below

        sample = pre[::SAMPLE_EVERY]
        if (sample > 0).count_nonzero() > sparse_below(pre) * sample.numel():
            return None
        tokens, latents = (pre > 0).nonzero(as_tuple=True)
        values = pre[tokens, latents].float()
        return SparseCode(tokens, latents, values, (pre.shape[0], pre.shape[1]))

    def losses(self, now: Coded) -> dict[str, Tensor]:
        return {"l1": now.pressure * self.l1 * self.penalty(now.f, now.kept.world)}

    @property
    def l1_weight(self) -> float:
        return self.l1
