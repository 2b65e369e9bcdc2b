"""Directions that the RkCNN probe finds in the training rows, for the inits that use them."""

from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.rkcnn.mine import MINED_ROWS, mine_directions
from rkstore.rkcnn.source import StoreSite
from rkstore.training.inits.data import InitData
from rkstore.training.settings import TrainSettings

# What only mining depends on, and so has no part where directions are given.
MINING_OPTIONS = ("rkcnn_h", "rkcnn_m", "rkcnn_oversample", "rkcnn_score")


def mined_latents(dictionary: Dictionary, settings: TrainSettings) -> int:
    """How many latents ``--rkcnn-fraction`` gives to mined directions.

    Raises:
        BadInput: none, or more than there are.
    """
    mined = round(dictionary.d_sae * settings.rkcnn_fraction)
    if not 1 <= mined <= dictionary.d_sae:
        raise BadInput(
            f"--rkcnn-fraction {settings.rkcnn_fraction} of {dictionary.d_sae} latents is {mined}: "
            "it must leave from 1 to all of them"
        )
    return mined


def directions_of(data: InitData, settings: TrainSettings, *, drawn: int, wanted: int) -> Tensor:
    """The directions ``(n, d_in)`` that latents begin at: those of ``--directions``, or mined.

    As many as are wanted, or as there are; no more are mined than subsets are drawn.
    """
    if data.directions is not None:
        return data.directions[:wanted]
    return mine(data, settings, drawn=drawn, kept=min(wanted, drawn))


def mine(data: InitData, settings: TrainSettings, *, drawn: int, kept: int) -> Tensor:
    """:func:`mine_directions` from the training rows, ``(kept, d_in)``.

    Raises:
        BadInput: there are fewer subsets than that, or fewer with a defined score.
    """
    site = StoreSite(data.store, data.hook_name, data.spread(MINED_ROWS), data.left_out)
    try:
        return mine_directions(
            site,
            m=settings.rkcnn_m,
            drawn=drawn,
            kept=kept,
            score=settings.rkcnn_score,
            seed=settings.seed,
        )
    except BadInput as error:
        raise BadInput(
            f"--init {settings.init} mines r={kept} directions (latents × --rkcnn-fraction): "
            f"{error.sentence}"
        ) from None
