"""rkcnn: part of the latents begin as directions that the RkCNN probe found."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits.data import InitData
from rkstore.dictionaries.inits.mining import mine, mined_latents
from rkstore.dictionaries.inits.tied import tied
from rkstore.settings import TrainSettings


def rkcnn(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Mined directions in encoder *and* decoder; the other latents are ``tied``'s.

    The published code put them in the decoder alone, where the encoder does not know
    of them, and kept every subset it drew (``rkcnn-decoder``). Here more subsets are drawn
    than kept.
    """
    mined = mined_latents(dictionary, settings)
    drawn = round(mined * settings.rkcnn_oversample)
    directions = mine(data, settings, drawn=drawn, kept=mined)
    tied(dictionary, data, settings, generator)
    place(dictionary, directions, data)


def place(dictionary: Dictionary, directions: Tensor, data: InitData) -> None:
    """Let the first latents of a tied dictionary begin as these directions, ``(r, d_in)``.

    A principal direction varies more than a random one, and unscaled its latent would
    crowd out the others for that alone: on the demo model, TopK with plain directions
    explained less than either baseline. So the encoder gives every latent the spread
    that a random direction has, and what tells them apart is the shape of their tails.
    """
    mined = len(directions)
    dictionary.W_dec[:mined] = directions
    dictionary.W_enc[:, :mined] = directions.T * _equal_spread(directions, data.sample())


def _equal_spread(directions: Tensor, x: Tensor) -> Tensor:
    """For each direction ``(r, d_in)`` the factor, ``(r,)``, that gives the projection of the
    rows ``x`` the standard deviation of a projection on a random direction."""
    typical = x.var(dim=0).mean().sqrt()
    return typical / (x @ directions.T).std(dim=0).clamp_min(1e-6)
