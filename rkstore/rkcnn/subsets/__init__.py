"""Subsets: which few of an activation's dimensions are looked at together. One file each.

To add a kind, write its file and add it to ``SUBSETS``.
"""

from rkstore.errors import BadInput
from rkstore.rkcnn.subsets.base import Indices, Subsets, basis_of, by_rotation
from rkstore.rkcnn.subsets.bases import Bases
from rkstore.rkcnn.subsets.coordinates import Coordinates, random_subsets
from rkstore.rkcnn.subsets.partitions import Partitions

SUBSETS: dict[str, Subsets] = {
    subsets.name: subsets for subsets in (Coordinates(), Partitions(), Bases())
}


def subsets_named(name: str) -> Subsets:
    """Return the subsets of that name.

    Raises:
        BadInput: no subsets have that name.
    """
    if name not in SUBSETS:
        raise BadInput(f"unknown subsets '{name}': choose one of {', '.join(SUBSETS)}")
    return SUBSETS[name]


__all__ = [
    "SUBSETS",
    "Indices",
    "Subsets",
    "basis_of",
    "by_rotation",
    "random_subsets",
    "subsets_named",
]
