"""Inits: how the tensors of a dictionary begin. One file each.

An init is a function ``(dictionary, data, settings, generator)``; to add one, write
its file and add it to ``INITS``, and to ``INIT_OPTIONS`` with the options that not all inits read.
It finds random unit rows in ``W_dec``, of a seed the same for every init, so that two inits differ
in nothing but what they do; and ``b_dec`` where ``--center`` puts it (``centre.py``).
``--init-bias`` and ``--init-scale`` may follow (``calibration.py``).
"""

from collections.abc import Callable

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.training.inits.calibration import calibrate
from rkstore.training.inits.centre import centre
from rkstore.training.inits.controls import rkcnn_unscored, sparse_random
from rkstore.training.inits.data import InitData
from rkstore.training.inits.datapoint import datapoint
from rkstore.training.inits.random import random
from rkstore.training.inits.rkcnn import rkcnn
from rkstore.training.inits.rkcnn_decoder import rkcnn_decoder
from rkstore.training.inits.subspace import subspace
from rkstore.training.inits.tied import tied
from rkstore.training.settings import TrainSettings

Init = Callable[[Dictionary, InitData, TrainSettings, torch.Generator], None]

INITS: dict[str, Init] = {
    "random": random,
    "tied": tied,
    "datapoint": datapoint,
    "subspace": subspace,
    "rkcnn": rkcnn,
    "rkcnn-decoder": rkcnn_decoder,
    "rkcnn-unscored": rkcnn_unscored,
    "sparse-random": sparse_random,
}

# The options that have a part in some inits only. A score orders what is mined even where it
# selects nothing.
_MINED = ("rkcnn_fraction", "rkcnn_m", "rkcnn_score")
INIT_OPTIONS: dict[str, tuple[str, ...]] = {
    "random": (),
    "tied": (),
    "datapoint": ("datapoint_share",),
    "subspace": ("subspace_dim",),
    "rkcnn": (*_MINED, "datapoint_share", "rkcnn_oversample", "directions"),
    "rkcnn-decoder": (*_MINED, "rkcnn_h", "directions"),
    "rkcnn-unscored": (*_MINED, "datapoint_share"),
    "sparse-random": (*_MINED, "datapoint_share"),
}


@torch.no_grad()
def initialise(dictionary: Dictionary, data: InitData, settings: TrainSettings) -> None:
    """Fill a dictionary as the settings say; all inits with one seed share their random base.

    Raises:
        BadInput: no init has that name, or its options do not fit the site.
    """
    if settings.init not in INITS:
        raise BadInput(f"unknown init '{settings.init}': choose one of {', '.join(INITS)}")
    if data.directions is not None and "directions" not in INIT_OPTIONS[settings.init]:
        able = [name for name, options in INIT_OPTIONS.items() if "directions" in options]
        raise BadInput(
            f"--init {settings.init} begins at no directions of a probe: "
            f"leave out --directions, or choose --init {' or '.join(able)}"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    dictionary.W_dec.normal_(generator=generator)
    dictionary.normalise_decoder()
    dictionary.b_dec.copy_(centre(data, settings))
    INITS[settings.init](dictionary, data, settings, generator)
    dictionary.normalise_decoder()
    calibrate(dictionary, data, settings)


__all__ = ["INITS", "INIT_OPTIONS", "Init", "InitData", "initialise"]
