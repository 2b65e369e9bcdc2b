"""rkcnn-unscored and sparse-random: rkcnn without one of its ingredients, for experiments.

From ``rkcnn`` to ``tied`` each takes away one thing, so that a gain can be put down to it:

    rkcnn            principal directions of the subsets with the best scores
    rkcnn-unscored   principal directions of random subsets
    sparse-random    random directions in the same random subsets
    tied             random directions
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits.data import InitData
from rkstore.dictionaries.inits.mining import mine, mined_latents
from rkstore.dictionaries.inits.rkcnn import place
from rkstore.dictionaries.inits.tied import tied
from rkstore.settings import TrainSettings


def rkcnn_unscored(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """``rkcnn`` with no more subsets drawn than kept, so that no score selects any."""
    tied(dictionary, data, settings, generator)
    place(dictionary, _unscored(dictionary, data, settings), data)


def sparse_random(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Gaussian directions where those of ``rkcnn-unscored`` are not zero."""
    tied(dictionary, data, settings, generator)
    mined = _unscored(dictionary, data, settings)
    values = torch.randn(mined.shape, generator=generator)
    place(dictionary, F.normalize(torch.where(mined != 0, values, 0), dim=1), data)


def _unscored(dictionary: Dictionary, data: InitData, settings: TrainSettings) -> Tensor:
    mined = mined_latents(dictionary, settings)
    return mine(data, settings, drawn=mined, kept=mined)
