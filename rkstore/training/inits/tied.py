"""tied: random unit decoder rows, the encoder their transpose."""

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.settings import TrainSettings


def tied(
    dictionary: Dictionary, _data: InitData, _settings: TrainSettings, _generator: torch.Generator
) -> None:
    """A latent fires where its own direction is present: Gao et al. (2024, arXiv 2406.04093)
    found this to be what most prevents dead latents."""
    dictionary.W_enc.copy_(dictionary.W_dec.T)
