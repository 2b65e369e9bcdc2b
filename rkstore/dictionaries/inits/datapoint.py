"""datapoint: every latent begins as the direction of a row of the data; encoder tied."""

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits.data import InitData
from rkstore.dictionaries.inits.tied import tied
from rkstore.errors import BadInput
from rkstore.settings import TrainSettings


def datapoint(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Anthropic, "Circuits Updates, October 2025", on data-point initialisation.

    A decoder row is ``p · (x - b_dec) + (1 - p) · random``, both of norm 1, for a row ``x`` that
    no other latent has. They suggest ``p = 0.8`` for autoencoders; some randomness also keeps
    apart latents of rows that are the same, as those of BOS are.
    """
    share = settings.datapoint_share
    if share > 1:
        raise BadInput(f"--datapoint-share is {share}: it must be from 0 to 1")
    rows = data.draw(dictionary.d_sae, generator) - dictionary.b_dec
    if len(rows) < dictionary.d_sae:
        raise BadInput(
            f"--init datapoint needs a row for each of {dictionary.d_sae} latents and there are "
            f"{len(rows)} to train on: lower --expansion or harvest more tokens"
        )
    norms = rows.norm(dim=1, keepdim=True)
    blend = share * rows / norms.clamp_min(1e-12) + (1 - share) * dictionary.W_dec
    # A row that is b_dec itself has no direction.
    dictionary.W_dec.copy_(torch.where(norms > 0, blend, dictionary.W_dec))
    dictionary.normalise_decoder()
    tied(dictionary, data, settings, generator)
