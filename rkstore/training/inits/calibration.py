"""--init-bias and --init-scale: optional after any init, computed from a sample of rows."""

import copy

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows, side_by_side

# Latents whose pre-activations on all sample rows are held in memory at once: 32 MB.
BLOCK_LATENTS = 1024

# Rows that are reconstructed to find the scale, with all latents in memory; few are enough.
SCALE_ROWS = 1024


def fire_at_rate(dictionary: Dictionary, rows: Rows, rate: float) -> None:
    """Set ``b_enc`` so that every latent's pre-activation is above zero on that share of rows.

    ``b_enc = -Q(1 - rate)`` of the latent's projection of the rows ``(n, width)``: none starts
    dead or always on, whatever the distribution of its projections.
    """
    for bank, (W_enc, b_enc, _) in dictionary.banks:
        x = dictionary.read(rows, bank)
        above = min(max(1, round(rate * len(x))), len(x) - 1)
        for latents in torch.split(torch.arange(bank.latents), BLOCK_LATENTS):
            projections = W_enc.T[latents] @ x.T
            b_enc[latents] = -projections.topk(above + 1, dim=1).values[:, -1]


def match_reconstruction(dictionary: Dictionary, rows: Rows) -> None:
    """Scale the encoder so that reconstructions of rows ``(n, width)`` are as long as the rows.

    Both relative to ``b_dec``, mean over the rows. Gao et al. (2024, arXiv 2406.04093) do so in
    their code, with random unit vectors for rows. Every select is positively homogeneous, except
    for its thresholds and biases, so these take the same factor as the weights.
    """
    # A copy: every batch updates the threshold of batchtopk.
    trial = copy.deepcopy(dictionary)
    pre = [trial.read(rows, bank) @ W_enc + b_enc for bank, (W_enc, b_enc, _) in trial.banks]
    # In a wiring with a skip it is zero so far.
    (decoded,) = trial.decodings(trial.code(torch.cat(pre, dim=-1)), bias=False)
    writes = dictionary.wiring.writes
    length = side_by_side(decoded, writes).norm(dim=1).mean()
    if length > 0:
        wanted = side_by_side(rows, writes) - dictionary.b_dec
        factor = wanted.norm(dim=1).mean() / length
        for _, (W_enc, b_enc, _) in dictionary.banks:
            W_enc.mul_(factor)
            b_enc.mul_(factor)
        for pool in dictionary.pools:
            pool.rescale(1 / factor)
