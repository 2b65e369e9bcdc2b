"""Layouts: the files of a dictionary, as one program has them. One file each.

To add one, write its file and add it to ``LAYOUTS``.
"""

from rkstore.dictionaries.layouts.base import Layout
from rkstore.dictionaries.layouts.own import Own
from rkstore.dictionaries.layouts.saelens import SAELens

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (Own, SAELens)}
"""What ``convert --to`` and the readers know, by name."""

__all__ = ["LAYOUTS", "Layout"]
