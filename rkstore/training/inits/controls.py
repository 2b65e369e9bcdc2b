"""rkcnn-unscored and sparse-random: rkcnn without one of its ingredients, for experiments.

From ``rkcnn`` to ``tied`` each takes away one thing, so that a gain can be put down to it:

    rkcnn            principal directions of the subsets with the best scores, and rows
    rkcnn-unscored   principal directions of random subsets, and rows
    sparse-random    random directions in the same random subsets, and rows
    datapoint        random directions, and rows (in equal parts with --datapoint-share 0.5)
    tied             random directions
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.inits.mining import mine, mined_latents
from rkstore.training.inits.rkcnn import begin_at
from rkstore.training.settings import TrainSettings


def rkcnn_unscored(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """``rkcnn`` with no more subsets drawn than kept, so that no score selects any."""
    begin_at(_unscored(dictionary, data, settings), dictionary, data, settings, generator)


def sparse_random(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Gaussian directions where those of ``rkcnn-unscored`` are not zero."""
    mined = _unscored(dictionary, data, settings)
    # Of a generator of their own: the rows are the same ones as for the other inits.
    values = torch.randn(mined.shape, generator=torch.Generator().manual_seed(settings.seed + 1))
    directions = F.normalize(torch.where(mined != 0, values, 0), dim=1)
    begin_at(directions, dictionary, data, settings, generator)


def _unscored(dictionary: Dictionary, data: InitData, settings: TrainSettings) -> Tensor:
    mined = mined_latents(dictionary, settings)
    return mine(data, settings, drawn=mined, kept=mined)
