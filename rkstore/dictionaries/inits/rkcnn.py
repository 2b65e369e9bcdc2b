"""rkcnn: part of the latents begin as directions that the RkCNN probe found."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits.data import InitData
from rkstore.dictionaries.inits.tied import tied
from rkstore.errors import BadInput
from rkstore.rkcnn import RkCNNProbe, StoreSite
from rkstore.settings import TrainSettings


def rkcnn(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Mined directions in encoder *and* decoder; the other latents are ``tied``'s.

    The published code put them in the decoder alone, where the encoder does not know
    of them, and kept every subset it drew (r = h), so that scores decided nothing.
    Here more subsets are drawn than kept.

    A principal direction varies more than a random one, and unscaled its latent would
    crowd out the others for that alone: on the demo model, TopK with plain directions
    explained less than either baseline. So the encoder gives every latent the spread
    that a random direction has, and what tells them apart is the shape of their tails.
    """
    tied(dictionary, data, settings, generator)
    mined = round(dictionary.d_sae * settings.rkcnn_fraction)
    if not 1 <= mined <= dictionary.d_sae:
        raise BadInput(
            f"--rkcnn-fraction {settings.rkcnn_fraction} of {dictionary.d_sae} latents is {mined}: "
            "it must leave from 1 to all of them"
        )
    try:
        probe = RkCNNProbe(
            dictionary.d_in,
            m=settings.rkcnn_m,
            h=round(mined * settings.rkcnn_oversample),
            r=mined,
            score_method=settings.rkcnn_score,
            seed=settings.seed,
        )
        site = StoreSite(data.store, data.hook_name, data.chunks)
        directions = probe.probe(site).top_directions
    except BadInput as error:
        raise BadInput(
            f"--init rkcnn mines r={mined} directions (latents × --rkcnn-fraction): {error}"
        ) from None
    assert directions is not None
    dictionary.W_dec[:mined] = directions
    dictionary.W_enc[:, :mined] = directions.T * _equal_spread(directions, data.sample())


def _equal_spread(directions: Tensor, x: Tensor) -> Tensor:
    """For each direction ``(r, d_in)`` the factor, ``(r,)``, that gives the projection of the
    rows ``x`` the standard deviation of a projection on a random direction."""
    typical = x.var(dim=0).mean().sqrt()
    return typical / (x @ directions.T).std(dim=0).clamp_min(1e-6)
