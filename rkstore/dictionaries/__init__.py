"""Sparse codes of activations.

A dictionary is four tensors and a *select*: which latents of the pre-activation
stay on (``selects/``). How its tensors begin is an *init* (``inits/``), how they are
to change its ``gradient.py``; ``auxk.py`` and ``resampling.py`` help dead latents. On disk
it is what SAELens reads (``checkpoint.py``).
"""

from rkstore.dictionaries.auxk import AuxK
from rkstore.dictionaries.checkpoint import load_dictionary, save_dictionary
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.gradient import Forward, fill_gradients
from rkstore.dictionaries.inits import INITS, initialise
from rkstore.dictionaries.resampling import resample
from rkstore.dictionaries.scratch import Scratch
from rkstore.dictionaries.selects import SELECTS, Select, select_named

__all__ = [
    "INITS",
    "SELECTS",
    "AuxK",
    "Dictionary",
    "Forward",
    "Scratch",
    "Select",
    "fill_gradients",
    "initialise",
    "load_dictionary",
    "resample",
    "save_dictionary",
    "select_named",
]
