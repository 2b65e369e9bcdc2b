"""datapoint: every latent begins as the direction of a row of the data; encoder tied."""

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.training.inits.data import InitData
from rkstore.training.inits.tied import tied
from rkstore.training.settings import TrainSettings

# What Anthropic suggests for autoencoders.
SHARE = 0.8


def datapoint(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Anthropic, "Circuits Updates, October 2025", on data-point initialisation."""
    blend_rows(dictionary, data, settings, generator, SHARE)
    tied(dictionary, data, settings, generator)


def blend_rows(
    dictionary: Dictionary,
    data: InitData,
    settings: TrainSettings,
    generator: torch.Generator,
    usual: float,
) -> None:
    """Make of every decoder row ``p · (x - b_dec) + (1 - p) · row``, all of norm 1.

    Each gets a row ``x`` of the data that no other latent has. What the decoder held before keeps
    apart latents of rows that are the same, as those of BOS are.

    Args:
        usual: the share p where ``--datapoint-share`` says nothing.

    Raises:
        BadInput: the share is above 1, or there are fewer rows than latents.
    """
    share = usual if settings.datapoint_share is None else settings.datapoint_share
    if share > 1:
        raise BadInput(f"--datapoint-share is {share}: it must be from 0 to 1")
    rows = data.draw(dictionary.d_sae, generator) - dictionary.b_dec
    if len(rows) < dictionary.d_sae:
        raise BadInput(
            f"--init {settings.init} needs a row for each of {dictionary.d_sae} latents and there "
            f"are {len(rows)} to train on: lower --expansion or harvest more tokens"
        )
    norms = rows.norm(dim=1, keepdim=True)
    blend = share * rows / norms.clamp_min(1e-12) + (1 - share) * dictionary.W_dec
    # A row that is b_dec itself has no direction.
    dictionary.W_dec.copy_(torch.where(norms > 0, blend, dictionary.W_dec))
    dictionary.normalise_decoder()
