"""rkcnn-decoder: RkCNN's initialisation as it was published, in the decoder alone."""

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.inits.mining import directions_of, mined_latents
from rkstore.training.inits.random import random
from rkstore.training.settings import TrainSettings


def rkcnn_decoder(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """What the RkCNN-SAE code does: ``min(fraction · d_sae, h)`` rows of ``random``'s decoder
    become mined directions, and the encoder stays as it is.

    Where the fraction of the latents is more than the ``h`` subsets drawn, as it was in all
    published runs, every subset is kept and the score decides nothing. One thing is not as
    published: there the sign of a direction was that of the eigenvector routine.
    """
    random(dictionary, data, settings, generator)
    wanted = mined_latents(dictionary, settings)
    directions = directions_of(data, settings, drawn=settings.rkcnn_h, wanted=wanted)
    dictionary.W_dec[: len(directions)] = directions
