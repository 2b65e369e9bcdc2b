"""Resampling: dead latents begin again, at inputs that are reconstructed badly.

Bricken et al. (2023), "Towards Monosemanticity", appendix on neuron resampling.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary

# Norm of a resampled encoder row, as a share of the mean norm of the living ones.
ENCODER_NORM = 0.2

# Rows that are reconstructed at once.
BLOCK_ROWS = 1024


@torch.no_grad()
def resample(
    dictionary: Dictionary,
    optimizer: torch.optim.Adam,
    dead: Tensor,
    x: Tensor,
    generator: torch.Generator,
) -> None:
    """Let the latents numbered ``dead (n,)`` begin again as directions of rows ``x (rows, d_in)``.

    A row is drawn in proportion to the square of its loss, none twice unless there are too
    few. Its direction, relative to ``b_dec``, becomes the decoder row and, shorter, the encoder
    row; the bias becomes zero, and Adam forgets the gradients before.
    """
    if not len(dead):
        return
    odds = _losses(dictionary, x).square().clamp_min(1e-30)
    drawn = torch.multinomial(
        odds, len(dead), replacement=len(dead) > len(odds), generator=generator
    )
    directions = x[drawn.to(x.device)] - dictionary.b_dec
    directions = F.normalize(directions, dim=1)
    living = torch.ones(dictionary.d_sae, dtype=torch.bool, device=x.device)
    living[dead] = False
    norms = dictionary.W_enc.norm(dim=0)
    typical = (norms[living] if living.any() else norms).mean()
    dictionary.W_dec[dead] = directions
    dictionary.W_enc.T[dead] = ENCODER_NORM * typical * directions
    dictionary.b_enc[dead] = 0
    for moment in ("exp_avg", "exp_avg_sq"):
        optimizer.state[dictionary.W_dec][moment][dead] = 0
        optimizer.state[dictionary.W_enc][moment].T[dead] = 0
        optimizer.state[dictionary.b_enc][moment][dead] = 0


def _losses(dictionary: Dictionary, x: Tensor) -> Tensor:
    """``‖x̂ - x‖²`` of each row, float64 ``(rows,)`` on the CPU."""
    # As at inference: batchtopk's threshold learns from every batch that it sees in training.
    dictionary.eval()
    losses = [(dictionary(rows) - rows).square().sum(dim=1) for rows in torch.split(x, BLOCK_ROWS)]
    dictionary.train()
    return torch.cat(losses).double().cpu()
