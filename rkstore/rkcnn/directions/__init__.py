"""Directions: what stands for a subset in the whole space. One file each.

To add a kind, write its file and add it to ``DIRECTIONS``.
"""

from rkstore.errors import BadInput
from rkstore.rkcnn.directions.apart import keep_apart
from rkstore.rkcnn.directions.base import Directions
from rkstore.rkcnn.directions.finding import find_directions, principal_directions
from rkstore.rkcnn.directions.ica import ICA
from rkstore.rkcnn.directions.mixing import Mixing
from rkstore.rkcnn.directions.principal import Principal

DIRECTIONS: dict[str, type[Directions]] = {kind.name: kind for kind in (Principal, ICA, Mixing)}


def directions_named(name: str) -> type[Directions]:
    """Return the directions of that name.

    Raises:
        BadInput: no directions have that name.
    """
    if name not in DIRECTIONS:
        raise BadInput(f"unknown directions '{name}': choose one of {', '.join(DIRECTIONS)}")
    return DIRECTIONS[name]


__all__ = [
    "DIRECTIONS",
    "Directions",
    "directions_named",
    "find_directions",
    "keep_apart",
    "principal_directions",
]
