"""Dictionaries: sparse codes of activations, without their training.

A dictionary is a ``wiring`` of banks, each two matrices and a bias, and a ``select``: which
latents stay on. ``disk.py`` saves and loads it, in SAELens' layout if it has one.
"""

from typing import TYPE_CHECKING

from rkstore.door import door

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.disk import load_dictionary, save_dictionary
    from rkstore.dictionaries.layouts import LAYOUTS, Layout
    from rkstore.dictionaries.selects import SELECTS, Select, select_named

__all__ = [
    "LAYOUTS",
    "SELECTS",
    "Dictionary",
    "Layout",
    "Select",
    "load_dictionary",
    "save_dictionary",
    "select_named",
]

# Imported on first use: reading the options of a training must not import torch.
__getattr__ = door(
    __name__,
    {
        "rkstore.dictionaries.dictionary": "Dictionary",
        "rkstore.dictionaries.disk": "load_dictionary save_dictionary",
        "rkstore.dictionaries.layouts": "LAYOUTS Layout",
        "rkstore.dictionaries.selects": "SELECTS Select select_named",
    },
)
