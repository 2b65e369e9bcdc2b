"""rkcnn: latents begin between a direction that the RkCNN probe found and a row of the data."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.training.inits.data import InitData
from rkstore.training.inits.datapoint import blend_rows
from rkstore.training.inits.mining import directions_of, mined_latents
from rkstore.training.inits.tied import tied
from rkstore.training.settings import TrainSettings

# Half way between a row and a direction.
SHARE = 0.5


def rkcnn(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """The best directions of the probe, each blended with a row of the data, in encoder *and*
    decoder; the other latents are blends of a random direction and a row.

    The published code put directions in the decoder alone, where the encoder does not know
    of them, and kept every subset it drew (``rkcnn-decoder``). Here more subsets are drawn
    than kept. Rows are in it because without them it explains less than random directions
    do (docs/rkcnn.md).
    """
    mined = mined_latents(dictionary, settings)
    drawn = round(mined * settings.rkcnn_oversample)
    directions = directions_of(data, settings, drawn=drawn, wanted=mined)
    begin_at(directions, dictionary, data, settings, generator)


def begin_at(
    directions: Tensor,
    dictionary: Dictionary,
    data: InitData,
    settings: TrainSettings,
    generator: torch.Generator,
) -> None:
    """Let the first latents begin between these directions, ``(r, d_in)``, and rows."""
    dictionary.W_dec[: len(directions)] = directions
    blend_rows(dictionary, data, settings, generator, SHARE)
    tied(dictionary, data, settings, generator)
