"""When each latent first fires: dead latents at every window, from one pass over the rows.

After some thousand tokens nearly all latents have fired, and only the others matter. A latent
fires only if it is above zero and above the k-th largest pre-activation, which is at least
the k-th largest of any subset of the latents. For most tokens a subset rules out all remaining
latents; the other tokens are encoded in full, so the result is exact. Where there is no such
bound (a signed code, a code norm, several banks), every token is.
"""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.selects.batchtopk import BatchTopK
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.errors import BadInput
from rkstore.evaluation.measure import fires

# Latents computed for the bound, per latent that a TopK code keeps.
BOUNDING = 16

# The bound is used once the fraction of latents that have not fired is below this.
FEW = 0.5

NEVER = torch.iinfo(torch.int64).max


class Lifetimes:
    """Takes rows in order and records when each latent first fires.

    Args:
        dictionary: encodes rows in their own units.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        self.tokens = 0
        device = dictionary.b_dec.device
        self._first = torch.full((dictionary.d_sae,), NEVER, device=device)
        self._counts = torch.zeros(dictionary.d_sae, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, x: Tensor | Rows) -> None:
        """Add the next activations, ``(n, d_in)``, of several sites by name."""
        x = self.dictionary.rows(x)
        count = len(next(iter(x.values())))
        waiting = (self._first == NEVER).nonzero().squeeze(1)
        rows = torch.arange(count, device=self._first.device)
        if len(waiting) < FEW * self.dictionary.d_sae and _is_bounded(self.dictionary):
            rows = _undecided(self.dictionary, x, waiting, self._counts)
        if len(rows):
            some = {name: of_site[rows] for name, of_site in x.items()}
            tokens, latents = fires(self.dictionary.encode(some)).nonzero(as_tuple=True)
            self._first.scatter_reduce_(0, latents, self.tokens + rows[tokens], "amin")
            self._counts += torch.bincount(latents, minlength=self.dictionary.d_sae)
        self.tokens += count

    @property
    def first(self) -> Tensor:
        """Index of the first token that each latent fired on, int64 ``(d_sae,)``.

        The number of all tokens for a latent that never fired: a latent is dead in the first ``w``
        tokens iff its index is at least ``w``.
        """
        return self._first.clamp_max(self.tokens)

    def dead(self, window: int) -> Tensor:
        """Which latents fired on none of the first ``window`` tokens, bool ``(d_sae,)``.

        Raises:
            BadInput: fewer tokens were added.
        """
        if window > self.tokens:
            raise BadInput(
                f"a window of {window:,} tokens needs more than the {self.tokens:,} read"
            )
        return self.first >= window


def _is_bounded(dictionary: Dictionary) -> bool:
    """Whether a latent fires only above a bound that some of the latents give."""
    wiring = dictionary.wiring
    if len(wiring.banks) > 1 or wiring.norm != "none":
        return False
    # A rule derived from one of these may let others fire.
    return type(dictionary.select.rule) in (TopK, BatchTopK, ReLU)


def _undecided(dictionary: Dictionary, x: Rows, waiting: Tensor, counts: Tensor) -> Tensor:
    """Indices of the rows of ``x`` on which a latent that has not fired yet may fire."""
    if not len(waiting):
        return waiting
    select, (bank,) = dictionary.select.rule, dictionary.wiring.banks
    read = dictionary.read(x, bank)
    best = _pre(dictionary, read, waiting).amax(dim=1)
    bound = torch.zeros(len(read), device=read.device)
    if type(select) is TopK:
        busiest = counts.topk(min(BOUNDING * select.k, dictionary.d_sae)).indices
        kth = _pre(dictionary, read, busiest).topk(select.k, dim=1).values.amin(dim=1)
        # The full product sums in another order and may differ in the last digits.
        bound = (kth - 1e-4 * kth.abs()).clamp_min(0)
    return (best > bound).nonzero().squeeze(1)


def _pre(dictionary: Dictionary, read: Tensor, latents: Tensor) -> Tensor:
    """Pre-activations of some latents, ``(n, len(latents))``."""
    return read @ dictionary.W_enc[:, latents] + dictionary.b_enc[latents]
