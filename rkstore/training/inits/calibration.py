"""--init-bias and --init-scale: what may follow on any init, from a sample of rows."""

import copy

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.settings import TrainSettings

# Latents whose pre-activations on all sample rows are in memory at once: 32 MB.
BLOCK_LATENTS = 1024

# Rows that are reconstructed to find the scale: all latents are in memory, but few are enough.
SCALE_ROWS = 1024

# Inits that are scaled unless asked otherwise. Latents that begin as rows of the data are much
# alike and overshoot together, twenty times the variance on the demo model: scaled, they
# explained far more in the end.
SCALED = ("datapoint", "rkcnn", "rkcnn-unscored", "sparse-random")


def calibrate(dictionary: Dictionary, data: InitData, settings: TrainSettings) -> None:
    """Change the encoder's biases and scale as the settings say; directions stay."""
    if settings.init_bias == "quantile":
        fire_at_rate(dictionary, data.sample(), settings.k / dictionary.d_sae)
    scale = settings.init_scale or ("reconstruction" if settings.init in SCALED else "none")
    if scale == "reconstruction":
        match_reconstruction(dictionary, data.sample(SCALE_ROWS))


def fire_at_rate(dictionary: Dictionary, x: Tensor, rate: float) -> None:
    """Set ``b_enc`` so that every latent's pre-activation is above zero on that share of rows.

    ``b_enc = -Q(1 - rate)`` of the latent's projection of the rows ``x (n, d_in)``: none
    begins dead and none always on, however its projections are distributed.
    """
    above = min(max(1, round(rate * len(x))), len(x) - 1)
    centred = x - dictionary.b_dec
    for latents in torch.split(torch.arange(dictionary.d_sae), BLOCK_LATENTS):
        projections = dictionary.W_enc.T[latents] @ centred.T
        dictionary.b_enc[latents] = -projections.topk(above + 1, dim=1).values[:, -1]


def match_reconstruction(dictionary: Dictionary, x: Tensor) -> None:
    """Scale the encoder so that reconstructions of ``x (n, d_in)`` are as long as the rows.

    Both relative to ``b_dec``, mean over the rows. Gao et al. (2024, arXiv 2406.04093) do so in
    their code, with random unit vectors for rows. Every select is positively homogeneous but
    for a threshold, which is zero here, so weights and biases take the same factor.
    """
    # A copy: the select of batchtopk learns from every batch that it sees.
    select = copy.deepcopy(dictionary.select)
    centred = x - dictionary.b_dec
    code = select(centred @ dictionary.W_enc + dictionary.b_enc)
    length = (code @ dictionary.W_dec).norm(dim=1).mean()
    if length > 0:
        factor = centred.norm(dim=1).mean() / length
        dictionary.W_enc.mul_(factor)
        dictionary.b_enc.mul_(factor)
