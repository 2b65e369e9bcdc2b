"""Subsets: which few of an activation's dimensions are looked at together. One file each.

To add a kind, write its file, with the options that it needs, and add it to ``SUBSETS``.
"""

from typing import Any

from rkstore.rkcnn.subsets.base import Indices, Subsets, basis_of, by_rotation
from rkstore.rkcnn.subsets.bases import Bases
from rkstore.rkcnn.subsets.coordinates import Coordinates, random_subsets
from rkstore.rkcnn.subsets.partitions import Partitions
from rkstore.settings import member_named

SUBSETS: dict[str, type[Subsets]] = {kind.name: kind for kind in (Coordinates, Partitions, Bases)}


def subsets_named(name: str, **options: Any) -> Subsets:
    """Return the subsets of that name, with those of the options that are their own.

    Raises:
        BadInput: no subsets have that name, or an option is out of bounds.
    """
    return member_named("subsets", SUBSETS, name, **options)


__all__ = [
    "SUBSETS",
    "Indices",
    "Subsets",
    "basis_of",
    "by_rotation",
    "random_subsets",
    "subsets_named",
]
