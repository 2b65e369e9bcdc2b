"""Sparse codes of activations.

A dictionary is four tensors and a *select*: which latents of the pre-activation
stay on (``selects/``). How its tensors begin is an *init* (``inits/``). On disk it
is what SAELens reads (``checkpoint.py``).
"""

from rkstore.dictionaries.checkpoint import load_dictionary, save_dictionary
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.inits import INITS, initialise
from rkstore.dictionaries.selects import SELECTS, Select, select_named

__all__ = [
    "INITS",
    "SELECTS",
    "Dictionary",
    "Select",
    "initialise",
    "load_dictionary",
    "save_dictionary",
    "select_named",
]
