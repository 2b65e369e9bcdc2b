"""When a latent is dead: it fired on none of so many tokens."""

import torch
from torch import Tensor

# Usual in the field.
MOST = 10_000_000

# A latent of a short run must be found dead while there is time to help it.
SHARE_OF_RUN = 20


def dead_after(asked: int | None, tokens: int) -> int:
    """Tokens without firing after which a latent is dead.

    Args:
        asked: ``--dead-after``; by default 10 million, or a twentieth of the run if that is less.
        tokens: that the run sees.
    """
    return asked or max(1, min(MOST, tokens // SHARE_OF_RUN))


def idle_after(idle: Tensor, fired: Tensor, tokens: int) -> Tensor:
    """Tokens since each latent last fired, int64 ``(d_sae,)``, after a batch.

    Args:
        idle: the same before it.
        fired: which latents were on for any of its tokens, bool ``(d_sae,)``.
        tokens: in the batch.
    """
    return torch.where(fired, 0, idle + tokens)
