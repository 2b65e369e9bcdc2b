"""Sparse codes of activations.

A dictionary is four tensors and a *select*: which latents of the pre-activation
stay on (``selects/``). On disk it is what SAELens reads (``disk.py``).
"""

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.disk import load_dictionary, save_dictionary
from rkstore.dictionaries.selects import SELECTS, Select, select_named

__all__ = [
    "SELECTS",
    "Dictionary",
    "Select",
    "load_dictionary",
    "save_dictionary",
    "select_named",
]
