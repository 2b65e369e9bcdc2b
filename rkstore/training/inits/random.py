"""random: Xavier encoder and decoder, drawn apart. The usual baseline."""

import torch
from torch import nn

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.settings import TrainSettings


def random(
    dictionary: Dictionary, _data: InitData, _settings: TrainSettings, generator: torch.Generator
) -> None:
    """Glorot & Bengio (2010) for both matrices: encoder and decoder know nothing of each other.

    The decoder stays the base that all inits share: its rows are given norm 1, which leaves
    nothing of the scale that Xavier chooses.
    """
    # Drawn row by row, however the encoder lies in memory.
    drawn = torch.empty(dictionary.W_enc.shape)
    dictionary.W_enc.copy_(nn.init.xavier_uniform_(drawn, generator=generator))
