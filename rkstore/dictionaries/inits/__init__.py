"""Inits: how the tensors of a dictionary begin. One file each.

An init is a function ``(dictionary, data, settings, generator)``; to add one, write
its file and add it to ``INITS``.
"""

from collections.abc import Callable

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits.data import InitData
from rkstore.dictionaries.inits.random import random
from rkstore.dictionaries.inits.rkcnn import rkcnn
from rkstore.dictionaries.inits.tied import tied
from rkstore.errors import BadInput
from rkstore.settings import TrainSettings

Init = Callable[[Dictionary, InitData, TrainSettings, torch.Generator], None]

INITS: dict[str, Init] = {"random": random, "tied": tied, "rkcnn": rkcnn}


def initialise(dictionary: Dictionary, data: InitData, settings: TrainSettings) -> None:
    """Fill a dictionary as the settings say; all inits with one seed share their random base.

    Raises:
        BadInput: no init has that name, or its options do not fit the site.
    """
    if settings.init not in INITS:
        raise BadInput(f"unknown init '{settings.init}': choose one of {', '.join(INITS)}")
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        INITS[settings.init](dictionary, data, settings, generator)
    dictionary.normalise_decoder()


__all__ = ["INITS", "Init", "InitData", "initialise"]
