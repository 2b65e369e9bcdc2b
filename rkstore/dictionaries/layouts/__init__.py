"""Layouts: the files of a dictionary, as one program has them. One file each.

To add one, write its file and add it to ``LAYOUTS``.
"""

from pathlib import Path

from rkstore.dictionaries.layouts.base import Layout
from rkstore.dictionaries.layouts.own import Own
from rkstore.dictionaries.layouts.saelens import SAELens

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (Own, SAELens)}
"""What ``convert --to`` and the readers know, by name."""


def layouts_of(directory: Path) -> list[Layout]:
    """The layouts that a directory has."""
    return [layout for kind in LAYOUTS.values() if (layout := kind()).found(directory)]


__all__ = ["LAYOUTS", "Layout", "layouts_of"]
