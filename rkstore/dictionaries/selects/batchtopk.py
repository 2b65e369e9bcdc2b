"""BatchTopK: k latents of a token on average (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.base import Select
from rkstore.dictionaries.selects.jumprelu import JumpReLU
from rkstore.dictionaries.selects.topk import TopK

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode

# The threshold is the mean over about this many batches, so that it follows the weights.
REMEMBERED = 100


class BatchTopK(TopK):
    """In training, the ``batch · k`` largest pre-activations of a batch stay, if above zero;
    at inference, those above a threshold. A batch is that of all processes.

    The threshold is the paper's estimate: the mean over training batches, here a running one,
    of the smallest pre-activation that stayed. So a token's code does not depend on other tokens.
    As with batch normalisation, ``train()`` and ``eval()`` choose.
    """

    name = "batchtopk"
    architecture = None
    by_latent = True

    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        if not kept.training:
            return pre.relu() * (pre > kept.get_buffer("threshold"))
        import torch

        flat = pre.flatten(0, -2)
        code = self.sparse(flat.detach(), kept)
        on = torch.zeros_like(flat, dtype=torch.bool)
        on[code.tokens, code.latents] = True
        return (flat * on).view_as(pre)

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode:
        """The code of a training batch as a list, which updates the threshold."""
        from rkstore.dictionaries.sparse import SparseCode

        batch, latents = pre.shape
        most = kept.world.rows(batch) * self.k
        entries = _largest(pre, most)
        values = pre.flatten()[entries].float()
        processes = kept.together
        of_each = processes.gather(values)
        if sum(map(len, of_each)) > most:
            stays = _among_largest(of_each, most)
            of_each = [one[on] for one, on in zip(of_each, stays, strict=True)]
            entries, values = entries[stays[processes.rank]], of_each[processes.rank]
        if any(map(len, of_each)):
            least = min(one.min() for one in of_each if len(one))
            kept.average("threshold", least, REMEMBERED)
        return SparseCode(entries // latents, entries % latents, values, (batch, latents))

    def state(self, latents: int) -> dict[str, Tensor]:  # noqa: ARG002
        import torch

        return {"threshold": torch.zeros(()), "batches": torch.zeros((), dtype=torch.int64)}

    def rescale(self, kept: Selection, scale: float | Tensor) -> None:
        kept.get_buffer("threshold").div_(scale)

    def at_inference(self, kept: Selection, latents: int) -> tuple[Select, dict[str, Tensor]]:
        """A JumpReLU with one threshold for all latents, which is how SAELens saves it."""
        return JumpReLU(), {"threshold": kept.get_buffer("threshold").expand(latents).clone()}

    def in_training(self, kept: Selection) -> dict[str, Tensor] | None:
        """The threshold of :meth:`at_inference`, as a mean over enough batches not to jump."""
        import torch

        if type(kept.rule) is not JumpReLU:
            return super().in_training(kept)
        thresholds = kept.get_parameter("threshold").detach()
        if not torch.allclose(thresholds, thresholds[:1], rtol=1e-4):
            return None
        return {"threshold": thresholds.mean(), "batches": torch.tensor(REMEMBERED)}


def _among_largest(of_each: list[Tensor], n: int) -> list[Tensor]:
    """Which values of each process are among the ``n`` largest of all, bool."""
    import torch

    everything = torch.cat(of_each)
    stays = torch.zeros_like(everything, dtype=torch.bool)
    stays[everything.topk(n, sorted=False).indices] = True
    return list(torch.split(stays, [len(one) for one in of_each]))


def _largest(pre: Tensor, n: int) -> Tensor:
    """Flat indices of the ``n`` largest pre-activations above zero, ascending.

    A sample of the rows gives a rough lower bound of the smallest of them; sorting only the values
    above it gives the same as sorting everything.
    """
    import torch

    from rkstore.dictionaries.sparse import SAMPLE_EVERY

    flat, sample = pre.flatten(), pre[::SAMPLE_EVERY].flatten()
    # More of the sample than its share, so that its smallest is rarely too large.
    share = n * len(sample) // len(flat)
    guess = sample.topk(min(len(sample), share + share // 4 + 1), sorted=False).values.min()
    candidates = (flat > guess.clamp_min(0)).nonzero().squeeze(1)
    if len(candidates) < n:
        candidates = (flat > 0).nonzero().squeeze(1)
    if len(candidates) > n:
        stays = torch.zeros_like(candidates, dtype=torch.bool)
        stays[flat[candidates].topk(n, sorted=False).indices] = True
        candidates = candidates[stays]
    return candidates
