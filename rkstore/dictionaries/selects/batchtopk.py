"""BatchTopK: k latents of a token on average (Bussmann et al. 2024, arXiv 2412.06410)."""

import torch
from torch import Tensor

from rkstore.dictionaries.selects.jumprelu import JumpReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.dictionaries.sparse import SAMPLE_EVERY, SparseCode

# The threshold is the mean over about so many batches, so that it follows the weights.
REMEMBERED = 100


class BatchTopK(TopK):
    """In training, the ``batch · k`` largest pre-activations of a batch stay, if above zero;
    at inference, those above a threshold.

    The threshold is the paper's estimate: the mean over training batches, here a running one,
    of the smallest pre-activation that stayed. With it a token's code depends on no other
    token. As with batch normalisation, ``train()`` and ``eval()`` choose.
    """

    name = "batchtopk"
    architecture = None
    threshold: Tensor
    batches: Tensor

    def __init__(self, k: int = 32) -> None:
        super().__init__(k)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, pre: Tensor) -> Tensor:
        if not self.training:
            return torch.relu(pre) * (pre > self.threshold)
        flat = pre.flatten(0, -2)
        code = self.sparse(flat.detach())
        on = torch.zeros_like(flat, dtype=torch.bool)
        on[code.tokens, code.latents] = True
        return (flat * on).view_as(pre)

    @torch.no_grad()
    def sparse(self, pre: Tensor) -> SparseCode:
        """The code of a training batch as a list, from which the threshold learns."""
        batch, d_sae = pre.shape
        entries = _largest(pre, batch * self.k)
        values = pre.flatten()[entries].float()
        if len(values):
            self.batches += 1
            rate = 1 / self.batches.clamp_max(REMEMBERED)
            self.threshold += rate * (values.min() - self.threshold)
        return SparseCode(entries // d_sae, entries % d_sae, values, (batch, d_sae))

    def rescale(self, scale: float) -> None:
        self.threshold.div_(scale)

    def at_inference(self, d_sae: int) -> JumpReLU:
        """A JumpReLU with one threshold for all latents, which is how SAELens saves it."""
        select = JumpReLU()
        select.threshold = self.threshold.expand(d_sae).clone()
        return select


def _largest(pre: Tensor, n: int) -> Tensor:
    """Where the ``n`` largest pre-activations above zero are, flat and ascending.

    A sample of the rows tells roughly where the smallest of them lies; sorting only what
    is above that gives the same as sorting everything.
    """
    flat, sample = pre.flatten(), pre[::SAMPLE_EVERY].flatten()
    # More of the sample than its share, so that its smallest is seldom too large.
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
