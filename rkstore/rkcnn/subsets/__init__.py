"""Subsets of an activation's dimensions that are scored together. One file each.

To add a kind, write its file, with the options that it needs, and add it to ``SUBSETS``.
"""

from rkstore.rkcnn.subsets.base import Indices, Subsets, basis_of, by_rotation
from rkstore.rkcnn.subsets.bases import Bases
from rkstore.rkcnn.subsets.coordinates import Coordinates, random_subsets
from rkstore.rkcnn.subsets.partitions import Partitions

SUBSETS: dict[str, type[Subsets]] = {kind.name: kind for kind in (Coordinates, Partitions, Bases)}
"""What ``--subsets`` offers, by name."""

__all__ = ["SUBSETS", "Indices", "Subsets", "basis_of", "by_rotation", "random_subsets"]
